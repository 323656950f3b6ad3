"""The container engine: whether it answers, what it can hold, its image and its clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from managedd.doctor.finding import Finding, note, ok, problem, warning
from managedd.doctor.words import age, processors, size
from managedd.drivers.docker_probe import Fault
from managedd.drivers.docker_spec import is_runtime_there
from managedd.model.limits import SLACK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from managedd.model.limits import HostLimits

ENGINE = "container engine"
IMAGE = "image"
OLD_IMAGE_DAYS = 180.0
SKEW_WARNING_SECONDS = 1.0
SKEW_PROBLEM_SECONDS = 30.0

_MEND = {
    Fault.PERMISSION: "add the user to the group docker (usermod -aG docker USER) and log in again, or run as root; whoever is in that group "
    "is root on this host in all but name",
    Fault.NO_SOCKET: "install an engine (on Debian and Ubuntu: apt-get install docker.io), or name the address of one in docker.host or DOCKER_HOST",
    Fault.REFUSED: "start the engine: systemctl start docker",
    Fault.TIMEOUT: "the engine hangs: look at journalctl -u docker, then systemctl restart docker",
    Fault.TLS: "see DOCKER_TLS_VERIFY, DOCKER_CERT_PATH and the docker context: the engine's certificate and the client's have to fit",
    Fault.TOO_OLD: "upgrade the engine to Docker 20.10 or newer",
    Fault.OTHER: "see docker.host, DOCKER_HOST and the docker context, and whether `docker version` answers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What runs run in; None: nothing can be chosen, and `why` says why not."""

    driver: str | None
    why: str


def choose(wanted: str, *, running: str | None, engine_answers: bool, refusal: str | None) -> Choice:
    """What the daemon has chosen (`running`), or would choose if it started now; `refusal` is why runs may not be processes."""
    if running is not None:
        return Choice(driver=running, why="the daemon runs with it")
    if wanted == "docker":
        return Choice(driver="docker", why="runs.driver says so")
    if wanted == "process":
        return Choice(driver=None if refusal else "process", why=refusal or "runs.driver says so")
    if engine_answers:
        return Choice(driver="docker", why="a container engine answers")
    return Choice(driver=None if refusal else "process", why=refusal or "no container engine answers")


def unusable(fault: Fault, words: str, *, needed: bool) -> Finding:
    """The finding for an engine that can't be used; no problem where runs are in processes."""
    if needed:
        return problem(ENGINE, words, _MEND[fault], fault=fault.value)
    return note(ENGINE, f"{words}; runs are in processes", _MEND[fault], fault=fault.value)


def usable(version: Mapping[str, Any], info: Mapping[str, Any]) -> Finding:
    """The finding for one that answered."""
    name = next(
        (
            str(part.get("Name"))
            for part in version.get("Components") or []
            if "podman" in str(part.get("Name")).lower()
        ),
        "Docker",
    )
    shown = version.get("Version")
    return ok(
        ENGINE,
        f"{name} {shown} on {info.get('OperatingSystem') or version.get('Os')}, API {version.get('ApiVersion')}, storage {info.get('Driver')}",
        version=shown,
        api_version=version.get("ApiVersion"),
        storage_driver=info.get("Driver"),
    )


def driver(choice: Choice, *, wanted: str, daemon_runs: bool, engine_answers: bool) -> Finding:
    """The finding about what runs run in."""
    facts = {"configured": wanted, "chosen": choice.driver}
    if choice.driver is None:
        return problem("driver", f"nothing can run: {choice.why}", "install or start a container engine", **facts)
    said = f"{choice.driver}, because {choice.why}"
    if choice.driver == "process" and wanted == "auto" and daemon_runs and engine_answers:
        return note(
            "driver",
            f"{said}; since then an engine answers",
            "restart the daemon: new runs are in containers then",
            **facts,
        )
    return ok("driver", said, **facts)


def control_groups(info: Mapping[str, Any]) -> list[Finding]:
    """Which version, and which limits of a run the engine can hold at all."""
    version, manager = str(info.get("CgroupVersion") or "1"), str(info.get("CgroupDriver") or "unknown")
    name = "control groups"
    if manager == "none":
        return [
            problem(
                name,
                "the engine runs without control groups: no limit holds",
                "a rootless engine needs cgroup v2 and systemd with delegation: see the engine's documentation on running it rootless",
                version=version,
            )
        ]
    found = [ok(name, f"version {version}, driven by {manager}", version=version, driver=manager)]
    # What an engine does not say is not denied.
    lacks = {key for key in ("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota") if info.get(key) is False}
    warnings = [str(each) for each in info.get("Warnings") or []]
    # Newer engines leave the flag away on v2 and only warn.
    lacks |= {key for key, words in _WARNED.items() if any(words in each.lower() for each in warnings)}
    boot = "boot with cgroup_enable=memory swapaccount=1 on the kernel's command line (GRUB_CMDLINE_LINUX, then update-grub)"
    delegate = "delegate the controllers to the engine: Delegate=cpu memory pids in its unit"
    facts = {"cannot_hold": sorted(lacks), "engine_warnings": warnings}
    if "MemoryLimit" in lacks:
        found.append(problem("memory limit", "the engine can't limit memory: a run may take all of it", boot, **facts))
    elif "SwapLimit" in lacks:
        found.append(
            warning(
                "memory limit",
                "memory is limited, swap is not: a run that is over its limit swaps instead of being ended",
                boot,
                **facts,
            )
        )
    else:
        found.append(ok("memory limit", "the engine limits memory and swap", **facts))
    if "PidsLimit" in lacks:
        found.append(
            warning("process limit", "the engine can't limit processes: a run may start any number", delegate, **facts)
        )
    else:
        found.append(ok("process limit", "the engine limits processes"))
    if "CpuCfsQuota" in lacks:
        found.append(
            warning(
                "processor limit", "the engine can't limit processor time: a run may take all of it", delegate, **facts
            )
        )
    else:
        found.append(ok("processor limit", "the engine limits processor time"))
    return found


_WARNED = {
    "MemoryLimit": "no memory limit support",
    "SwapLimit": "no swap limit support",
    "PidsLimit": "no pids limit support",
    "CpuCfsQuota": "no cpu cfs quota support",
}


def confinement(options: Sequence[str]) -> list[Finding]:
    """The filter of system calls, users of the container's own, and a policy over files; `options` are the engine's SecurityOptions."""
    named = {option.partition("name=")[2].partition(",")[0]: option for option in options}
    profile = named.get("seccomp", "").partition("profile=")[2]
    found = []
    if "seccomp" not in named or profile == "unconfined":
        found.append(
            problem(
                "seccomp",
                "the engine filters no system calls of containers" + (": its profile is unconfined" if profile else ""),
                'take "seccomp-profile" out of /etc/docker/daemon.json and --seccomp-profile off the engine\'s command line; the kernel needs '
                "CONFIG_SECCOMP_FILTER",
                profile=profile or None,
            )
        )
    else:
        found.append(
            ok(
                "seccomp",
                f"the engine filters the system calls of containers (profile {profile or 'default'})",
                profile=profile,
            )
        )
    if "userns" in named or "rootless" in named:
        how = "its own user's" if "rootless" in named else "remapped"
        found.append(
            ok("user namespace", f"root in a run is nobody on this host: the engine's users are {how}", apart=True)
        )
    else:
        found.append(
            note(
                "user namespace",
                "root in a run is root of this host to the kernel, without its capabilities",
                '"userns-remap": "default" in /etc/docker/daemon.json makes it nobody; the engine keeps images and volumes anew for it',
                apart=False,
            )
        )
    policy = next((each for each in ("apparmor", "selinux") if each in named), None)
    if policy is None:
        found.append(note("policy over files", "neither AppArmor nor SELinux confines containers here", policy=None))
    else:
        found.append(ok("policy over files", f"{policy} confines containers", policy=policy))
    return found


def features(info: Mapping[str, Any], *, runtime: str | None) -> list[Finding]:
    """How the engine is set up, as far as runs feel it."""
    found = []
    if info.get("LiveRestoreEnabled"):
        found.append(ok("engine restarts", "containers outlive a restart of the engine (live restore)"))
    else:
        found.append(
            note(
                "engine restarts",
                "runs end when the engine is restarted",
                'for runs that outlive it, set "live-restore": true in /etc/docker/daemon.json, then systemctl reload docker',
            )
        )
    if info.get("Driver") == "vfs":
        found.append(
            warning(
                "storage driver",
                "vfs copies the whole image for every run",
                "use overlay2: its kernel module, and a file system under it that carries it (ext4, or xfs with ftype=1)",
            )
        )
    runtimes = sorted(info.get("Runtimes") or {})
    if runtime is not None and not is_runtime_there(runtime, runtimes):
        found.append(
            problem(
                "container runtime",
                f"docker.runtime is {runtime!r}, the engine has {', '.join(runtimes) or 'none'}",
                "install it and name it under runtimes in /etc/docker/daemon.json, or take docker.runtime out",
            )
        )
    others = [
        words
        for each in info.get("Warnings") or []
        if not any(known in (words := str(each).removeprefix("WARNING: ")).lower() for known in _WARNED.values())
    ]
    if others:
        found.append(note("engine warnings", "; ".join(others), "see the engine's documentation", warnings=others))
    if any("rootless" in str(option) for option in info.get("SecurityOptions") or []):
        found.append(
            note(
                "rootless engine",
                "the engine is rootless: its gateway is not an address of this host",
                "set runs.listen_host and runs.api_url",
            )
        )
    return found


def image(
    name: str,
    policy: str,
    *,
    found: Mapping[str, Any] | None,
    registry_digest: str | None,
    registry_words: str | None,
    engine_architecture: str | None,
    age_seconds: float | None,
) -> Finding:
    """The image of runs that name none: here or to be had, for this machine, and how old."""
    if found is None:
        if policy == "Never":
            return problem(
                IMAGE,
                f"{name} is not here, and runs.pull_policy is Never",
                f"docker pull {name}, docker load, or another runs.pull_policy",
                present=False,
            )
        if registry_words is not None:
            return problem(
                IMAGE,
                f"{name} is not here and can't be pulled: {registry_words}",
                "see the name in runs.image, the engine's way to the registry (its proxy is set in the engine's own unit) and its name server; "
                "or bring it with docker save and docker load",
                present=False,
                pullable=False,
            )
        return note(
            IMAGE,
            f"{name} is not here yet and can be pulled; the first run waits for it",
            f"docker pull {name} now",
            present=False,
            pullable=True,
        )
    digests = [str(digest) for digest in found.get("RepoDigests") or []]
    facts = {
        "present": True,
        "pullable": registry_words is None,
        "digests": digests,
        "age_seconds": None if age_seconds is None else round(age_seconds),
    }
    shown = f"{name}, {size(int(found.get('Size') or 0))}" + (
        "" if age_seconds is None else f", made {age(age_seconds)} ago"
    )
    architecture = found.get("Architecture")
    if architecture and engine_architecture and _machine(str(architecture)) != _machine(engine_architecture):
        return problem(
            IMAGE,
            f"{shown}: it is for {architecture}, this engine runs on {engine_architecture}",
            f"docker pull --platform linux/{_machine(engine_architecture)} {name}",
            **facts,
        )
    if registry_words is not None and policy == "Always":
        return problem(
            IMAGE,
            f"{shown}; runs.pull_policy is Always, and it can't be pulled: {registry_words}",
            "let the engine reach the registry, or set runs.pull_policy to IfNotPresent",
            **facts,
        )
    if registry_digest is not None and not any(registry_digest in digest for digest in digests):
        return note(IMAGE, f"{shown}; the registry has another one under that name", f"docker pull {name}", **facts)
    if age_seconds is not None and age_seconds > OLD_IMAGE_DAYS * 86_400:
        return note(IMAGE, shown, f"docker pull {name}: a tag that moves stays at what was pulled first", **facts)
    if registry_words is not None:
        return ok(IMAGE, f"{shown}; its registry does not give it now, and need not", **facts)
    return ok(IMAGE, shown + ("" if registry_digest is None else "; the registry has the same"), **facts)


def _machine(architecture: str) -> str:
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}.get(architecture, architecture)


def clock(name: str, skew_seconds: float | None, whose: str) -> Finding:
    """How far another clock is from this host's; runs are started, ended and logged by both."""
    if skew_seconds is None:
        return note(name, f"{whose} does not tell its time")
    facts = {"skew_seconds": round(skew_seconds, 3)}
    apart = abs(skew_seconds)
    said = f"{whose} is {apart:.1f} s {'ahead of' if skew_seconds > 0 else 'behind'} this host"
    mend = "let both clocks be set from the network: timedatectl set-ntp true, or chrony; a virtual machine drifts after its host slept"
    if apart >= SKEW_PROBLEM_SECONDS:
        return problem(name, said, mend, **facts)
    if apart >= SKEW_WARNING_SECONDS:
        return warning(name, said, mend, **facts)
    return ok(name, f"{whose} agrees with this host within {max(apart, 0.1):.1f} s", **facts)


def slots(
    promised: int | None,
    plan: str,
    reserve: HostLimits,
    *,
    memory_limit_bytes: int,
    cpu_limit: float,
    host_memory_bytes: int,
    workspace: str | None = None,
) -> Finding:
    """How many runs of the usual size the host takes at once, and what the plan promises; the others wait in their queues.

    `workspace` is the one that is on the plan; None: it is the plan that a new one gets.
    """
    name = "effective slots"
    of_the_plan = f"plan {plan}" if workspace is None else f"plan {plan} of workspace {workspace}"
    fits = {
        "memory": None if reserve.memory_bytes is None else reserve.memory_bytes // memory_limit_bytes,
        "processors": None if reserve.cpus is None else int(reserve.cpus / cpu_limit + SLACK),
    }
    known = {what: count for what, count in fits.items() if count is not None}
    short = min(known, key=lambda what: known[what])
    least = known[short]
    facts: dict[str, Any] = {
        "plan": plan,
        "workspace": workspace,
        "slots": promised,
        "fit_memory": fits["memory"],
        "fit_processors": fits["processors"],
        "memory_limit_bytes": memory_limit_bytes,
        "host_memory_bytes": host_memory_bytes,
        "reservable_memory_bytes": reserve.memory_bytes,
    }
    each = f"runs of {size(memory_limit_bytes)} and {processors(cpu_limit)} each"
    room = f"{size(reserve.memory_bytes or 0)} of {size(host_memory_bytes)} are for runs"
    less = "runs that need less: runs.memory_limit_bytes, or memory_limit of a pool or deployment"
    if short == "processors":
        less = "a lower runs.cpu_limit or a higher host.cpu_overcommit"
    if least == 0:
        return problem(
            name,
            f"0 of {promised or 'unlimited'} ({of_the_plan}): {short}; {each} never start here, {room}",
            less,
            **facts,
        )
    if reserve.memory_bytes is not None and reserve.memory_bytes > host_memory_bytes:
        return warning(
            name,
            f"host.memory_bytes is {size(reserve.memory_bytes)}, and the host has {size(host_memory_bytes)}",
            "take host.memory_bytes out: else the host runs out of memory when all runs use what they may",
            **facts,
        )
    if promised is None:
        return note(name, f"{least} of unlimited ({of_the_plan}): {short}; {each}, {room}", **facts)
    if least < promised:
        return warning(
            name,
            f"{least} of {promised} ({of_the_plan}): {short}; {each}, {room}; more wait in their queue",
            f"{less}; or a smaller promise: plans.{plan}.concurrent_runs = {least}",
            **facts,
        )
    return ok(name, f"{promised} of {promised} ({of_the_plan}); {each}, {room}", **facts)


def plans(image: str, without: Sequence[str], *, default_plan: str) -> Finding:
    """Whether plans allow the image that runs get which name none; it is the operator's choice, and nobody asks about it."""
    name = "images of plans"
    if not without:
        return ok(name, f"every plan allows {image}", image=image, plans=[])
    words = f"{'plan' if len(without) == 1 else 'plans'} {', '.join(without)}"
    seen = (
        f"runs.image is {image}, and {words} {'does' if len(without) == 1 else 'do'} not allow it: a run that names no image gets it "
        "all the same, one that names it is refused"
    )
    mend = "add it to plans.NAME.images, or set runs.image to one that they allow"
    facts = {"image": image, "plans": list(without)}
    return warning(name, seen, mend, **facts) if default_plan in without else note(name, seen, mend, **facts)


def leftovers(removed: int) -> Sequence[Finding]:
    """What an earlier doctor had left."""
    if not removed:
        return []
    return [
        note(
            "leftovers",
            f"{removed} containers or networks of an earlier doctor that was killed are removed now",
            removed=removed,
        )
    ]
