"""What the doctor makes of a container engine: pure, each judgement from what was seen."""

from __future__ import annotations

from typing import Any

import pytest

from managedd.doctor.finding import Finding, Level
from managedd.doctor.judgement import engine
from managedd.drivers.docker_probe import Fault
from managedd.model.limits import HostLimits

GIB = 1024**3
LIMITS = {"CgroupVersion": "2", "CgroupDriver": "systemd", "MemoryLimit": True, "SwapLimit": True, "PidsLimit": True}


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


@pytest.mark.parametrize(
    ("fault", "mend"),
    [
        (Fault.PERMISSION, "group docker"),
        (Fault.NO_SOCKET, "docker.host"),
        (Fault.REFUSED, "systemctl start docker"),
        (Fault.TIMEOUT, "restart docker"),
        (Fault.TLS, "DOCKER_TLS_VERIFY"),
        (Fault.TOO_OLD, "20.10"),
        (Fault.OTHER, "docker version"),
    ],
)
def test_an_engine_that_cannot_be_used_is_a_problem_with_a_way_out(fault: Fault, mend: str) -> None:
    found = engine.unusable(fault, "the words", needed=True)
    assert (found.level, found.seen, found.facts["fault"]) == (Level.PROBLEM, "the words", fault.value)
    assert mend in str(found.mend)


def test_an_engine_that_nobody_needs_is_no_problem() -> None:
    assert engine.unusable(Fault.NO_SOCKET, "the words", needed=False).level is Level.NOTE


def test_every_fault_has_a_way_out() -> None:
    assert all(engine.unusable(fault, "", needed=True).mend for fault in Fault)


def test_an_engine_that_answers_is_named() -> None:
    found = engine.usable(
        {"Version": "28.2.2", "ApiVersion": "1.50"}, {"OperatingSystem": "Debian", "Driver": "overlay2"}
    )
    assert found.level is Level.OK
    assert "Docker 28.2.2 on Debian, API 1.50" in found.seen
    podman = engine.usable({"Version": "5.2", "Components": [{"Name": "Podman Engine"}]}, {})
    assert podman.seen.startswith("Podman Engine 5.2")


def test_limits_that_hold() -> None:
    found = engine.control_groups({**LIMITS, "CpuCfsQuota": True})
    assert {finding.level for finding in found} == {Level.OK}
    assert by_name(found)["control groups"].facts == {"version": "2", "driver": "systemd"}


@pytest.mark.parametrize(
    ("key", "words", "name", "level"),
    [
        ("MemoryLimit", "WARNING: No memory limit support", "memory limit", Level.PROBLEM),
        ("SwapLimit", "WARNING: No swap limit support", "memory limit", Level.WARNING),
        ("PidsLimit", "WARNING: No pids limit support", "process limit", Level.WARNING),
        ("CpuCfsQuota", "WARNING: No cpu cfs quota support", "processor limit", Level.WARNING),
    ],
)
def test_a_limit_that_does_not_hold_is_told_however_the_engine_says_it(
    key: str, words: str, name: str, level: Level
) -> None:
    said = by_name(engine.control_groups({**LIMITS, key: False}))
    warned = by_name(engine.control_groups({**{k: v for k, v in LIMITS.items() if k != key}, "Warnings": [words]}))
    for found in (said, warned):
        assert found.pop(name).level is level
        assert {other.level for other in found.values()} == {Level.OK}


def test_without_control_groups_no_limit_holds() -> None:
    [found] = engine.control_groups({"CgroupDriver": "none"})
    assert found.level is Level.PROBLEM


def test_features() -> None:
    plain = by_name(engine.features({"Driver": "overlay2", "LiveRestoreEnabled": True}, runtime=None))
    assert [finding.level for finding in plain.values()] == [Level.OK]
    odd = by_name(
        engine.features(
            {
                "Driver": "vfs",
                "Runtimes": {"runc": {}},
                "SecurityOptions": ["name=rootless"],
                "Warnings": ["WARNING: No swap limit support", "WARNING: bridge-nf-call-iptables is disabled"],
            },
            runtime="runsc",
        )
    )
    assert {name: finding.level for name, finding in odd.items()} == {
        "engine restarts": Level.NOTE,
        "storage driver": Level.WARNING,
        "container runtime": Level.PROBLEM,
        "rootless engine": Level.NOTE,
        "engine warnings": Level.NOTE,
    }
    # What has a finding of its own is not told twice.
    assert odd["engine warnings"].seen == "bridge-nf-call-iptables is disabled"
    assert "'runsc', the engine has runc" in odd["container runtime"].seen


def test_a_runtime_of_containerd_is_not_listed() -> None:
    found = engine.features({"Runtimes": {"runc": {}}, "LiveRestoreEnabled": True}, runtime="io.containerd.runsc.v1")
    assert [finding.name for finding in found] == ["engine restarts"]


def test_what_the_kernel_puts_between_a_run_and_the_host() -> None:
    def levels(*options: str) -> list[Level]:
        return [finding.level for finding in engine.confinement(options)]

    assert levels("name=seccomp,profile=default", "name=userns", "name=apparmor") == [Level.OK, Level.OK, Level.OK]
    assert levels("name=seccomp,profile=builtin", "name=rootless", "name=cgroupns") == [Level.OK, Level.OK, Level.NOTE]
    assert levels("name=seccomp,profile=unconfined", "name=selinux") == [Level.PROBLEM, Level.NOTE, Level.OK]
    assert levels() == [Level.PROBLEM, Level.NOTE, Level.NOTE]


def image(policy: str = "IfNotPresent", **changes: Any) -> Finding:
    there = {"Size": 500 * 1024**2, "Architecture": "amd64", "RepoDigests": ["p@sha256:aa"]}
    seen: dict[str, Any] = {
        "found": there,
        "registry_digest": "sha256:aa",
        "registry_words": None,
        "engine_architecture": "x86_64",
        "age_seconds": 3 * 86_400.0,
    }
    return engine.image("p:3", policy, **{**seen, **changes})


def test_an_image_that_is_here_and_its_age() -> None:
    found = image()
    assert (found.level, found.facts["age_seconds"]) == (Level.OK, 259_200)
    assert "500 MiB, made 3 days ago; the registry has the same" in found.seen


def test_an_image_that_is_not_here() -> None:
    assert (image(found=None).level, image(found=None).facts["pullable"]) == (Level.NOTE, True)
    lost = image(found=None, registry_digest=None, registry_words="no such host")
    assert (lost.level, "no such host" in lost.seen) == (Level.PROBLEM, True)
    never = image("Never", found=None, registry_digest=None)
    assert (never.level, "Never" in never.seen) == (Level.PROBLEM, True)


def test_an_image_that_has_to_be_pulled_each_time_and_cannot() -> None:
    offline: dict[str, Any] = {"registry_digest": None, "registry_words": "denied"}
    assert image("Always", **offline).level is Level.PROBLEM
    assert image(**offline).level is Level.OK


def test_an_image_for_another_machine_or_behind_its_registry_or_old() -> None:
    assert image(engine_architecture="aarch64").level is Level.PROBLEM
    assert "another one" in image(registry_digest="sha256:bb").seen
    old = image(age_seconds=200 * 86_400.0)
    assert (old.level, "docker pull p:3" in str(old.mend)) == (Level.NOTE, True)


@pytest.mark.parametrize(
    ("skew", "level"), [(0.0, Level.OK), (1.5, Level.WARNING), (-40.0, Level.PROBLEM), (None, Level.NOTE)]
)
def test_clocks_apart(skew: float | None, level: Level) -> None:
    assert engine.clock("clock of the engine", skew, "the engine's clock").level is level


def test_which_way_a_clock_is_off() -> None:
    assert "40.0 s behind" in engine.clock("c", -40.0, "it").seen
    assert "2.0 s ahead" in engine.clock("c", 2.0, "it").seen


def slots(
    promised: int | None,
    memory_bytes: int,
    *,
    reserve_bytes: int | None = None,
    cpus: float = 64.0,
    cpu_limit: float = 1.0,
    workspace: str | None = None,
) -> Finding:
    reserve = HostLimits(memory_bytes=memory_bytes - GIB if reserve_bytes is None else reserve_bytes, cpus=cpus)
    return engine.slots(
        promised,
        "pro",
        reserve,
        memory_limit_bytes=2 * GIB,
        cpu_limit=cpu_limit,
        host_memory_bytes=memory_bytes,
        workspace=workspace,
    )


def test_plans_that_do_not_allow_the_usual_image() -> None:
    assert engine.plans("prefecthq/prefect:3-latest", [], default_plan="pro").level is Level.OK
    found = engine.plans("ghcr.io/team/app:1", ["free", "pro"], default_plan="pro")
    assert (found.level, found.facts["plans"]) == (Level.WARNING, ["free", "pro"])
    assert "plans free, pro do not allow it" in found.seen
    assert engine.plans("ghcr.io/team/app:1", ["free"], default_plan="pro").level is Level.NOTE


def test_effective_slots() -> None:
    few = slots(10, 8 * GIB)
    assert (few.level, few.facts["fit_memory"]) == (Level.WARNING, 3)
    assert few.seen.startswith("3 of 10 (plan pro): memory")
    named = slots(10, 8 * GIB, workspace="default/default")
    assert named.seen.startswith("3 of 10 (plan pro of workspace default/default): memory")
    assert "plans.pro.concurrent_runs = 3" in str(few.mend)
    assert slots(10, 21 * GIB).level is Level.OK
    assert slots(10, 20 * GIB).level is Level.WARNING
    unlimited = slots(None, 8 * GIB)
    assert (unlimited.level, unlimited.seen.startswith("3 of unlimited (plan pro): memory")) == (Level.NOTE, True)


def test_processors_may_be_what_is_short() -> None:
    found = slots(10, 64 * GIB, cpus=4.0)
    assert found.seen.startswith("4 of 10 (plan pro): processors")
    assert "host.cpu_overcommit" in str(found.mend)
    assert slots(10, 64 * GIB, cpus=0.3, cpu_limit=0.1).facts["fit_processors"] == 3


def test_a_run_that_never_fits_is_a_problem() -> None:
    assert slots(10, 2 * GIB).level is Level.PROBLEM
    assert slots(None, 2 * GIB).level is Level.PROBLEM


def test_more_may_be_reserved_than_there_is() -> None:
    found = slots(10, 8 * GIB, reserve_bytes=64 * GIB)
    assert (found.level, "host.memory_bytes" in found.seen) == (Level.WARNING, True)


def test_leftovers_are_told() -> None:
    assert engine.leftovers(0) == []
    assert engine.leftovers(2)[0].facts["removed"] == 2


@pytest.mark.parametrize(
    ("wanted", "running", "answers", "refusal", "driver"),
    [
        ("auto", None, True, None, "docker"),
        ("auto", None, False, None, "process"),
        ("auto", None, False, "two workspaces", None),
        ("auto", None, True, "two workspaces", "docker"),
        ("docker", None, False, None, "docker"),
        ("process", None, True, None, "process"),
        ("process", None, True, "two workspaces", None),
        ("auto", "process", True, "two workspaces", "process"),
    ],
)
def test_the_choice(wanted: str, running: str | None, answers: bool, refusal: str | None, driver: str | None) -> None:
    choice = engine.choose(wanted, running=running, engine_answers=answers, refusal=refusal)
    assert choice.driver == driver
    assert driver is not None or choice.why == refusal


def test_the_driver_is_told_with_the_reason() -> None:
    def told(driver: str | None, **changes: Any) -> Finding:
        seen: dict[str, Any] = {"wanted": "auto", "daemon_runs": True, "engine_answers": True}
        return engine.driver(engine.Choice(driver=driver, why="so it is"), **{**seen, **changes})

    assert (told("docker").level, told("docker").seen) == (Level.OK, "docker, because so it is")
    assert told(None).level is Level.PROBLEM
    assert (told("process").level, "restart" in str(told("process").mend)) == (Level.NOTE, True)
    assert told("process", daemon_runs=False).level is Level.OK
    assert told("process", engine_answers=False).level is Level.OK
