"""Looks at a real directory, real rules and real commands; nothing here needs a container engine."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd.config import ServerSection, Settings, StoreSection
from managedd.doctor import inside as program
from managedd.doctor.checks import commands, data, engine, host, inside
from managedd.doctor.checks.listening import _standing_in
from managedd.doctor.examination import NotApplicable
from managedd.doctor.finding import Finding, Level
from managedd.doctor.patient import Patient
from managedd.drivers.docker_probe import DockerProbe, Fault, fault_of
from managedd.drivers.docker_spec import DockerSettings
from managedd.errors import ErrorCode, ManagedError
from managedd.store import peek
from managedd.store.lock import DataDirLock

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def patient_of(folder: Path, *, status: dict[str, Any] | None = None, port: int = 4200) -> Patient:
    async def ask() -> dict[str, Any]:
        if status is None:
            raise ManagedError(ErrorCode.UNAVAILABLE, "nobody is there")
        return status

    settings = Settings(store=StoreSection(data_dir=folder), server=ServerSection(port=port))
    return Patient(settings=settings, docker=DockerSettings(), ask=ask)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir(mode=0o700)
    return made


def named(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


# --- the data directory ------------------------------------------------------------------------------------------------


async def test_a_directory_of_this_users(folder: Path) -> None:
    (folder / "state.db").touch(mode=0o600)
    found = await data.directory(patient_of(folder))
    assert [finding.level for finding in found] == [Level.OK, Level.OK]
    os.chmod(folder, 0o755)
    assert (await data.directory(patient_of(folder)))[0].level is Level.WARNING


async def test_a_directory_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "a" / "b"
    patient = patient_of(missing)
    assert (await data.directory(patient))[0].level is Level.NOTE
    assert (await data.space(patient))[0].facts["path"] == str(tmp_path)
    with pytest.raises(NotApplicable):
        await data.flushing(patient)
    await data.daemon(patient)
    assert os.listdir(tmp_path) == []


async def test_the_file_system_is_that_of_the_longest_mount(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    link = tmp_path / "link"
    link.symlink_to(folder)
    where = str(folder).replace(" ", "\\040")
    mounts.write_text(
        f"1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {where} rw shared:1 - xfs /dev/b rw\n3 2 0:3 / {where} rw - nfs4 h:/x rw\n4 1 0:4 / {where}-not rw - tmpfs t rw\n"
    )
    monkeypatch.setattr(data, "MOUNTS", mounts)
    [found] = await data.file_system(patient_of(link / "below"))
    assert (found.level, found.facts) == (Level.PROBLEM, {"type": "nfs4", "mount": str(folder)})
    monkeypatch.setattr(data, "MOUNTS", tmp_path / "nothing")
    with pytest.raises(NotApplicable):
        await data.file_system(patient_of(folder))


async def test_flushing_leaves_nothing(folder: Path) -> None:
    [found] = await data.flushing(patient_of(folder))
    assert found.facts["seconds"] > 0
    assert os.listdir(folder) == []


async def test_a_daemon_that_answers_and_one_that_does_not(folder: Path) -> None:
    nobody = patient_of(folder)
    [found] = await data.daemon(nobody)
    assert (found.level, nobody.status, nobody.locked) == (Level.NOTE, None, False)
    with DataDirLock(folder):
        hung = patient_of(folder)
        [found] = await data.daemon(hung)
        assert (found.level, hung.locked_by) == (Level.PROBLEM, os.getpid())
        assert "nobody is there" in found.seen
        well = patient_of(folder, status={"version": "0", "url": "u", "instance_id": "abc"})
        await data.daemon(well)
        assert (well.instance_id, well.locked) == ("abc", True)


async def test_a_daemon_that_takes_forever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> dict[str, Any]:
        await anyio.sleep_forever()
        return {}

    monkeypatch.setattr(data, "ANSWER_SECONDS", 0.05)
    patient = patient_of(folder)
    patient.ask = ask
    with DataDirLock(folder):
        [found] = await data.daemon(patient)
    assert (found.level, "no answer in time" in found.seen) == (Level.PROBLEM, True)


async def test_the_store_is_read_without_a_trace(folder: Path) -> None:
    path = folder / "state.db"
    with sqlite3.connect(path) as store:
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("CREATE TABLE meta (key, value)")
        store.execute("INSERT INTO meta VALUES ('instance_id', 'abc'), ('runs_port', '4222')")
    store.close()
    before = set(os.listdir(folder))
    patient = patient_of(folder)
    await data.daemon(patient)
    assert patient.facts == {"instance_id": "abc", "runs_port": "4222"}
    assert patient.instance_id == "abc"
    assert set(os.listdir(folder)) == before


def test_the_store_tells_how_many_workspaces_there_are(folder: Path) -> None:
    assert peek.workspaces(folder) is None
    with sqlite3.connect(folder / "state.db") as store:
        store.execute("CREATE TABLE workspaces (id)")
        store.execute("INSERT INTO workspaces VALUES (1), (2)")
    store.close()
    assert peek.workspaces(folder) == 2


async def test_plans_that_workspaces_are_on_and_the_settings_have_not(folder: Path) -> None:
    patient = patient_of(folder)
    with pytest.raises(NotApplicable):
        await data.plans(patient)
    with sqlite3.connect(folder / "state.db") as store:
        store.execute("CREATE TABLE meta (key, value)")
        store.execute("CREATE TABLE accounts (id, handle)")
        store.execute("CREATE TABLE workspaces (account_id, handle, plan)")
        store.execute("INSERT INTO accounts VALUES (1, 'acme')")
        store.execute("INSERT INTO workspaces VALUES (1, 'one', 'pro'), (1, 'two', 'gold')")
    store.close()
    await data.daemon(patient)
    [found] = await data.plans(patient)
    assert found.level is Level.PROBLEM
    assert found.facts == {"without": {"acme/two": "gold"}}
    assert "acme/two is on 'gold'" in found.seen and "the daemon will not start" in found.seen
    assert "[plans.NAME]" in str(found.mend)

    answering = patient_of(folder)

    async def ask() -> dict[str, Any]:
        return {"workspaces": [{"account": "acme", "handle": "one", "plan": "pro"}]}

    answering.ask = ask
    await data.daemon(answering)
    [found] = await data.plans(answering)
    assert found.level is Level.OK


@pytest.mark.parametrize("content", [None, b"", b"no database"])
def test_a_store_that_cannot_be_read_says_nothing(folder: Path, content: bytes | None) -> None:
    if content is not None:
        (folder / "state.db").write_bytes(content)
    assert peek.facts(folder) == {}


async def test_a_taken_port(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        [found] = await data.client_port(patient_of(folder, port=taken.getsockname()[1]))
    assert found.level is Level.PROBLEM
    assert (await data.client_port(patient_of(folder, port=0)))[0].level is Level.OK
    listening = patient_of(folder)
    listening.status = {}
    with pytest.raises(NotApplicable):
        await data.client_port(listening)


# --- the host ----------------------------------------------------------------------------------------------------------


async def test_the_host_has_all_that_the_tests_need(folder: Path) -> None:
    patient = patient_of(folder)
    for look in (host.sqlite, host.time_zones, host.open_files, host.clock, host.unit):
        for finding in await look(patient):
            assert finding.level in {Level.OK, Level.NOTE, Level.WARNING}, finding


async def test_a_clock_that_jumps(folder: Path) -> None:
    patient = patient_of(folder)
    patient.began_wall -= 60
    [found] = await host.clock(patient)
    assert (found.level, "+60" in found.seen) == (Level.WARNING, True)


async def test_commands_that_are_not_there_or_hang_or_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await commands.said("no-such-command-at-all") is None
    failed = await commands.said("false")
    assert failed is not None
    assert failed.code == 1
    monkeypatch.setattr(commands, "SECONDS", 0.1)
    assert await commands.said("sleep", "30") is None


# --- the engine, when there is none ------------------------------------------------------------------------------------


@pytest.fixture
def dead_socket(tmp_path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "d.sock"))
    yield tmp_path / "d.sock"


async def fault_at(url: str) -> Fault:
    probe = DockerProbe(DockerSettings(), url=url, control_timeout_seconds=0.5)
    with pytest.raises(ManagedError) as caught:
        await probe.open()
    return fault_of(caught.value)


async def test_why_an_engine_does_not_answer(tmp_path: Path, dead_socket: Path) -> None:
    assert await fault_at(f"unix://{tmp_path}/none.sock") is Fault.NO_SOCKET
    assert await fault_at(f"unix://{dead_socket}") is Fault.REFUSED
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert await fault_at(f"tcp://127.0.0.1:{silent.getsockname()[1]}") is Fault.TIMEOUT


@pytest.mark.parametrize(("version", "fault"), [("1.39", Fault.TOO_OLD)])
async def test_an_engine_that_is_too_old(version: str, fault: Fault) -> None:
    from aiohttp import web

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"Version": "18.09.1", "ApiVersion": version, "MinAPIVersion": "1.12"})

    application = web.Application()
    application.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert await fault_at(f"tcp://127.0.0.1:{runner.addresses[0][1]}") is fault
    finally:
        await runner.cleanup()


def test_permission_denied_is_told_from_the_rest() -> None:
    try:
        try:
            raise PermissionError(13, "Permission denied")
        except PermissionError as inner:
            raise ManagedError(ErrorCode.DRIVER, "x") from inner
    except ManagedError as error:
        assert fault_of(error) is Fault.PERMISSION
    assert fault_of(ManagedError(ErrorCode.DRIVER, "x")) is Fault.OTHER


async def test_slots_are_judged_without_an_engine(folder: Path) -> None:
    [found] = await engine.slots(patient_of(folder))
    assert found.facts["host_memory_bytes"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# --- what stands in for the daemon, and the program inside -------------------------------------------------------------


async def look_from_here(*targets: dict[str, Any], seconds: float = 2.0) -> dict[str, Any]:
    """What the program sees when it runs beside us."""
    asked = json.dumps({"targets": targets, "timeout_seconds": seconds})
    done = await anyio.run_process([sys.executable, "-W", "error", str(program.__file__), asked])
    [line] = done.stdout.decode().splitlines()
    assert line.startswith(program.MARK)
    found: dict[str, Any] = json.loads(line.removeprefix(program.MARK))
    return found


def target(name: str, kind: str, port: int, host_: str = "127.0.0.1") -> dict[str, Any]:
    return {"name": name, "kind": kind, "host": host_, "port": port, "path": "/api/ready"}


async def test_the_stand_in_answers_and_the_program_sees_all_outcomes(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        free = socket.create_server(("127.0.0.1", 0))
        closed = free.getsockname()[1]
        free.close()
        async with _standing_in("127.0.0.1", (0,), "token-of-mine", folder) as (port, gave_way):
            seen = await look_from_here(
                target("api", "http", port),
                target("tcp", "tcp", port),
                target("closed", "tcp", closed),
                target("silent", "http", silent.getsockname()[1]),
                target("named", "tcp", port, "no-such-host.invalid"),
            )
            assert not gave_way.is_set()
    answers = seen["answers"]
    assert (answers["api"]["status"], answers["api"]["body"]) == (200, "token-of-mine")
    assert {name: answer["outcome"] for name, answer in answers.items()} == {
        "api": "answered", "tcp": "answered", "closed": "refused", "silent": "timeout", "named": "unresolved",
    }  # fmt: skip
    assert seen["python"] == ".".join(map(str, sys.version_info[:3]))
    assert seen["prefect"] is None


async def test_a_certificate_is_trusted_with_the_operators_authority_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    from aiohttp import web

    from tests.support.certificates import Authority

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="here")

    authority = Authority(tmp_path / "ca")
    mine = authority.certificate("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(mine.chain, mine.key)
    application = web.Application()
    application.router.add_get("/api/ready", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        there = target("api", "https", runner.addresses[0][1])
        assert (await look_from_here(there))["answers"]["api"]["outcome"] == "tls"
        monkeypatch.setenv("MANAGEDD_DOCTOR_CA", authority.bundle.read_text())
        assert (await look_from_here(there))["answers"]["api"]["status"] == 200
    finally:
        await runner.cleanup()


async def test_the_stand_in_takes_the_next_port_when_the_first_is_taken(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with _standing_in("127.0.0.1", (taken.getsockname()[1], 0), "t", folder) as (port, _):
            assert port != taken.getsockname()[1]


async def test_the_stand_in_gives_way_to_a_daemon_that_starts(folder: Path) -> None:
    async with _standing_in("127.0.0.1", (0,), "t", folder) as (port, gave_way):
        with DataDirLock(folder), anyio.fail_after(10):
            await gave_way.wait()
            while True:
                try:
                    socket.create_server(("127.0.0.1", port)).close()
                    break
                except OSError:
                    await anyio.sleep(0.01)


def test_this_hosts_addresses_are_real_ones() -> None:
    for address in inside._addresses():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
            assert not address.startswith("127.")


def test_the_program_needs_nothing_but_python(tmp_path: Path) -> None:
    import ast

    tree = ast.parse(Path(program.__file__).read_text())
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= set(sys.stdlib_module_names)
    assert stat.S_ISREG(Path(program.__file__).stat().st_mode)


def test_ipv6_addresses_that_other_networks_could_know(tmp_path: Path) -> None:
    table = tmp_path / "if_inet6"
    table.write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "20010db8000000000000000000000005 02 40 00 80     eth0\n"
        "fd00000000000000000000000000000a 02 40 00 80     eth0\n"
        "fe800000000000005054fffe00000001 02 40 20 80     eth0\n"
        "20010db8000100000000000000000001 03 40 00 80  docker0\n"
    )
    assert inside.ipv6_addresses(table) == {"2001:db8::5": "eth0", "fd00::a": "eth0"}
    assert inside.ipv6_addresses(tmp_path / "nothing") == {}


async def test_slots_are_those_of_the_plan_that_the_default_workspace_is_on(folder: Path) -> None:
    """It may have been moved; `default_plan` is what a new one gets."""
    patient = patient_of(folder)
    patient.plans = {"default/default": "free", "team/two": "unlimited"}
    [found] = await engine.slots(patient)
    assert (found.facts["plan"], found.facts["workspace"]) == ("free", "default/default")
    assert "(plan free of workspace default/default)" in found.seen
    patient.plans = {"default/default": "gone"}
    [found] = await engine.slots(patient)
    assert (found.facts["plan"], found.facts["workspace"]) == ("pro", None)
