"""What only a real engine and the real image can show."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
import zipfile
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import aiodocker
import anyio
import pytest

from managedd.drivers import nftables
from managedd.drivers.docker_spec import FOLDERS, HOME, DockerSettings, network_name, volume_prefix
from managedd.drivers.firewall import bridge_of
from managedd.model.drivers import ExitStatus, Handle, Liveness, RunSpec
from managedd.model.logs import LogCursor, RawLine, parse_record
from tests.drivers.conftest import DockerWorld, Life
from tests.support.provision import in_ci

if TYPE_CHECKING:
    from collections.abc import Iterator

    from managedd.drivers.docker import DockerDriver

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

MEGABYTE = 1 << 20


async def quiet(_line: str) -> None: ...


async def begin(driver: DockerDriver, spec: RunSpec) -> Handle:
    await driver.prepare(spec, quiet)
    handle = await driver.create(spec)
    await driver.start(handle)
    return handle


async def read(driver: DockerDriver, handle: Handle, after: LogCursor | None = None) -> list[RawLine]:
    with anyio.fail_after(120):
        async with driver.logs(handle, after or LogCursor()) as lines:
            return [line async for line in lines]


async def lived(
    world: DockerWorld, life: Life, *, settings: DockerSettings | None = None, **changes: object
) -> tuple[ExitStatus, list[str]]:
    """How it ended and what it printed."""
    driver = await world.driver(settings)
    handle = await begin(driver, world.spec(life, **changes))
    lines = await read(driver, handle)
    return await driver.wait(handle), [line.text for line in lines]


# Logs


async def test_a_follower_over_many_rotations_misses_nothing(docker_world: DockerWorld) -> None:
    """The engine ends or stalls a follower at rotations, or passes a whole file over; as long as the files hold the lines, all come, once."""
    count = 30_000
    driver = await docker_world.driver(DockerSettings(log_max_bytes=2 * MEGABYTE, log_max_files=5))
    code = f"for n in range({count}):\n print(n, 'x' * 80)\nprint('the end')"
    handle = await begin(driver, docker_world.spec(Life(code=code)))
    lines = await read(driver, handle)
    told = [line.text.partition(" ")[0] for line in lines]
    assert sorted(told) == sorted(["the", *(str(n) for n in range(count))])
    # What was passed over comes after the end.
    until_the_end = [int(number) for number in told[: told.index("the")]]
    assert until_the_end == sorted(until_the_end)
    assert [line.cursor for line in lines] == sorted({line.cursor for line in lines})


async def test_a_slow_follower_and_tiny_files_repeat_nothing(docker_world: DockerWorld) -> None:
    """Lines that the engine itself has thrown away are gone; what is told is in order and told once."""
    driver = await docker_world.driver(DockerSettings(log_max_bytes=20_000, log_max_files=1))
    code = "import time\nfor n in range(2000):\n print(n, 'x' * 60, flush=True)\n if n % 50 == 0: time.sleep(0.02)"
    handle = await begin(driver, docker_world.spec(Life(code=code)))
    lines = await read(driver, handle)
    numbers = [int(line.text.partition(" ")[0]) for line in lines]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 1999
    assert [line.cursor for line in lines] == sorted({line.cursor for line in lines})


async def test_a_restart_in_the_middle_of_a_flood(docker_world: DockerWorld) -> None:
    count = 20_000
    code = f"import sys\nfor n in range({count}): print(n, file=(sys.stdout, sys.stderr)[n % 2])"
    first = await docker_world.driver()
    handle = await begin(first, docker_world.spec(Life(code=code)))
    seen: list[RawLine] = []
    for take in (1, 500, 5000):
        driver = await docker_world.driver()
        async with driver.logs(handle, seen[-1].cursor if seen else LogCursor()) as lines:
            seen.extend([await anext(aiter(lines)) for _ in range(take)])
    seen += await read(await docker_world.driver(), handle, seen[-1].cursor)
    evens, odds = ([int(line.text) for line in seen if int(line.text) % 2 == rest] for rest in (0, 1))
    assert evens == list(range(0, count, 2))
    assert odds == list(range(1, count, 2))


async def test_long_lines_and_bytes_that_are_no_text(docker_world: DockerWorld) -> None:
    code = "import sys\nprint('é' * 30_000)\nprint('y' * 150_000)\nsys.stdout.flush()\nsys.stdout.buffer.write(b'\\xff\\n10%\\r100%\\n')"
    _, lines = await lived(docker_world, Life(code=code))
    assert lines[0] == "é" * 30_000
    assert "".join(lines[1:-2]) == "y" * 150_000
    assert len(lines[1:-2]) == 3
    assert lines[-2:] == ["\ufffd", "100%"]


# Ends


async def test_a_child_that_runs_out_of_memory_is_seen(docker_world: DockerWorld) -> None:
    hungry = "kept = [bytearray(1 << 24) for _ in range(64)]"
    code = f"import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', {hungry!r}]).returncode)"
    status, lines = await lived(docker_world, Life(code=code, memory_bytes=128 * MEGABYTE))
    assert lines == ["-9"]
    assert (status.exit_code, status.oom_killed) == (0, True)
    assert status.peak_memory_bytes is not None
    assert 100 * MEGABYTE < status.peak_memory_bytes <= 129 * MEGABYTE


@pytest.mark.parametrize(
    "forgery",
    [
        "(at / 'report').unlink(); (at / 'report.json').write_text('x' * 10_000_000)",
        "(at / 'report').unlink(); (at / 'report').symlink_to('/etc/passwd')",
        "(at / 'report').unlink(); (at / 'report').symlink_to('x' * 200 + '/' + '[' * 200)",
        "(at / 'report').unlink(); (at / 'report').symlink_to('/'.join(['x' * 200] * 20))",
        "(at / 'report').unlink(); (at / 'report').symlink_to('report')",
        "(at / 'report').unlink(); (at / 'report').mkdir()",
        "(at / 'report').unlink(); os.remove(at / 'report.json'); os.symlink('/etc/passwd', at / 'report.json')",
        "(at / 'report').unlink(); os.remove(at / 'report.json'); os.mkfifo(at / 'report.json')",
        "(at / 'report').unlink(); (at / 'report.json').write_text('[' * 60_000)",
        "import shutil; shutil.rmtree(at)",
    ],
)
async def test_a_forged_report_changes_nothing(docker_world: DockerWorld, forgery: str) -> None:
    """The shim is killed, so that the forgery is what stays."""
    code = f"import os, pathlib, signal\nat = pathlib.Path({FOLDERS[0]!r})\n{forgery}\nos.kill(os.getppid(), signal.SIGKILL)"
    status, _ = await lived(docker_world, Life(code=code))
    assert (status.exit_code, status.oom_killed, status.install_failed, status.peak_memory_bytes) == (
        137,
        False,
        False,
        None,
    )


async def test_a_command_that_does_not_exist(docker_world: DockerWorld) -> None:
    status, lines = await lived(docker_world, Life(), command=("no-such-command",))
    assert status.exit_code == 127
    (record,) = [parse_record(line) for line in lines]
    assert record is not None
    assert record.message == "no-such-command cannot be started: No such file or directory"


async def test_zombies_are_reaped_and_nothing_is_said_about_it(docker_world: DockerWorld) -> None:
    code = (
        "import os, time, pathlib\n"
        "for _ in range(5):\n if os.fork() == 0:\n  if os.fork() == 0: os._exit(0)\n  os._exit(0)\n os.wait()\n"
        "time.sleep(0.5)\n"
        "print(sum(b') Z' in p.read_bytes() for p in pathlib.Path('/proc').glob('[0-9]*/stat')))"
    )
    status, lines = await lived(docker_world, Life(code=code))
    assert (status.exit_code, lines) == (0, ["0"])


# Limits and isolation


async def test_what_a_run_may_do(docker_world: DockerWorld) -> None:
    code = (
        "import pathlib\n"
        "status = dict(l.split(':\\t', 1) for l in pathlib.Path('/proc/self/status').read_text().splitlines() if ':\\t' in l)\n"
        "print(status['CapEff'], status['CapBnd'], status['NoNewPrivs'])\n"
        "print(pathlib.Path('/var/run/docker.sock').exists())"
    )
    _, lines = await lived(docker_world, Life(code=code))
    # CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, SETGID 6, SETUID 7
    assert lines == ["00000000000000cb 00000000000000cb 1", "False"]


async def test_processes_are_limited(docker_world: DockerWorld) -> None:
    code = (
        "import os, time\nmade = 0\n"
        "try:\n while made < 500:\n  if os.fork() == 0: time.sleep(30); os._exit(0)\n  made += 1\n"
        "except OSError as error: print(error.strerror, made < 50, flush=True)\nos._exit(0)"
    )
    status, lines = await lived(docker_world, Life(code=code), pids=50)
    assert (status.exit_code, lines) == (0, ["Resource temporarily unavailable True"])


async def test_runs_do_not_reach_each_other_but_this_host(docker_world: DockerWorld) -> None:
    driver = await docker_world.driver()
    serve = "import http.server\nprint('up', flush=True)\nhttp.server.HTTPServer(('', 8000), http.server.BaseHTTPRequestHandler).serve_forever()"
    server = await begin(driver, docker_world.spec(Life(code=serve)))
    async with driver.logs(server, LogCursor()) as lines:
        assert (await anext(aiter(lines))).text == "up"
    async with aiodocker.Docker(url=docker_world._host) as docker:
        shown = await docker.containers.container(server.data["id"]).show()
    (network,) = shown["NetworkSettings"]["Networks"].values()
    host = await driver.bind_host()
    assert host is not None
    assert host == await driver.api_host()
    listener = await anyio.create_tcp_listener(local_host=host)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)

    async def welcome(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send(b"welcome")

    code = (
        "import socket\n"
        f"print(socket.create_connection(({host!r}, {port}), 5).recv(99))\n"
        f"try: socket.create_connection(({network['IPAddress']!r}, 8000), 2); print('reached')\n"
        "except OSError: print('not reached')"
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, welcome)
        _, printed = await lived(docker_world, Life(code=code))
        tasks.cancel_scope.cancel()
    await listener.aclose()
    assert printed == ["b'welcome'", "not reached"]


async def test_the_operators_settings_are_in_force(docker_world: DockerWorld) -> None:
    settings = DockerSettings(
        ca_bundle=b"-----EXTRA-----\n",
        https_proxy="http://proxy.example:3128",
        dns=("192.0.2.53",),
        extra_hosts=("git.example:192.0.2.7",),
    )
    code = (
        "import os, pathlib, socket\n"
        "bundle = pathlib.Path(os.environ['SSL_CERT_FILE']).read_text()\n"
        "print(os.environ['GIT_SSL_CAINFO'], bundle.endswith('-----EXTRA-----\\n'), 'BEGIN CERTIFICATE' in bundle)\n"
        "print(os.environ['HTTPS_PROXY'], socket.gethostbyname('git.example'), os.environ['NO_PROXY'])"
    )
    _, lines = await lived(
        docker_world, Life(code=code), settings=settings, env={"PREFECT_API_URL": "http://10.0.0.1:4201/api"}
    )
    assert lines == [
        "/var/opt/managedd/ca.pem True True",
        "http://proxy.example:3128 192.0.2.7 localhost,127.0.0.1,10.0.0.1",
    ]


# What official images need as root


async def test_git_and_archives_work_with_what_is_left_of_root(docker_world: DockerWorld) -> None:
    script = (
        "set -e; cd /tmp; export HOME=/tmp; git init -q origin; cd origin; echo hello > file; git add .; "
        "git -c user.name=n -c user.email=e@e commit -qm m; cd ..; git clone -q file:///tmp/origin copy; cat copy/file; "
        "mkdir other; chown 1000:1000 other; chmod 700 other; echo written > other/file; "
        "tar -C /tmp -cf a.tar other; mkdir out; tar -C out -xpf a.tar; stat -c %u out/other; cat out/other/file; "
        "setpriv --reuid 1000 --regid 1000 --clear-groups id -u"
    )
    status, lines = await lived(docker_world, Life(), command=("bash", "-c", script))
    assert lines == ["hello", "1000", "written", "1000"]
    assert status.exit_code == 0


def wheel() -> bytes:
    """A package `managedd_tested` in its installable form."""
    info = "managedd_tested-1.0.dist-info"
    files = {
        "managedd_tested.py": "ANSWER = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: managedd-tested\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


@contextmanager
def package_server(host: str) -> Iterator[tuple[int, list[str | None]]]:
    """A server of that package and the credentials it was asked with."""
    credentials: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            credentials.append(self.headers.get("Authorization"))
            body = wheel()
            self.send_response(200 if credentials[-1] else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_arguments: object) -> None: ...

    server = ThreadingHTTPServer((host, 0), Handler)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05))
    thread.start()
    try:
        yield server.server_port, credentials
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_packages_are_installed_and_their_credentials_seen_nowhere(docker_world: DockerWorld) -> None:
    driver = await docker_world.driver()
    host = await driver.bind_host()
    assert host is not None
    with package_server(host) as (port, credentials):
        package = f"managedd-tested @ http://deploy:s3cr3t-t0ken@{host}:{port}/managedd_tested-1.0-py3-none-any.whl"
        code = (
            "import managedd_tested, os, pathlib\nprint(managedd_tested.ANSWER, os.listdir('/var/opt/managedd'))\n"
            "print([p for p in pathlib.Path('/var/opt/managedd').rglob('*') if p.is_file() and b's3c' + b'r3t' in p.read_bytes()])"
        )
        handle = await begin(driver, docker_world.spec(Life(code=code, packages=(package,))))
        lines = [line.text for line in await read(driver, handle)]
        status = await driver.wait(handle)
    assert status.exit_code == 0, lines
    assert any(credentials)
    assert lines[-2].startswith("42 ")
    assert "requirements.txt" not in lines[-2]
    assert lines[-1] == "[]"
    assert status.installed_at_us is not None
    assert status.started_at_us is not None
    assert status.installed_at_us > status.started_at_us
    async with aiodocker.Docker(url=docker_world._host) as docker:
        everything = json.dumps([lines, await docker.containers.container(handle.data["id"]).show()])
    assert "s3cr3t" not in everything
    assert "****" in everything


async def test_an_image_whose_user_is_not_root(docker_world: DockerWorld) -> None:
    """What the shim writes is the user's own, and the requirements are readable by that user alone."""
    driver = await docker_world.driver()
    base = await driver.create(docker_world.spec(Life()))
    image = f"managedd-tests/user:{docker_world.instance_id}"
    async with aiodocker.Docker(url=docker_world._host) as docker:
        await docker.containers.container(base.data["id"]).commit(
            repository="managedd-tests/user", tag=docker_world.instance_id, changes=["USER games"]
        )
        try:
            code = "import os; print(os.getuid(), os.stat('/var/tmp/managedd/report.json').st_uid, os.environ['PYTHONPATH'])"
            status, lines = await lived(docker_world, Life(code=code), image=image)
            assert (status.exit_code, lines) == (0, ["5 5 /var/tmp/managedd/python"])
            assert status.installed_at_us is not None
            assert status.peak_memory_bytes is not None
            failing = Life(packages=("./there-is-nothing",))
            status, lines = await lived(docker_world, failing, image=image)
            assert status.install_failed
            assert "there-is-nothing" in str(status.error)
        finally:
            for container in await docker.containers.list(all=True, filters=json.dumps({"ancestor": [image]})):
                await container.delete(force=True)
            await docker.images.delete(image, force=True)


async def test_a_network_that_somebody_removed_is_made_again(docker_world: DockerWorld) -> None:
    driver = await docker_world.driver()
    name = f"managedd-{docker_world.instance_id.replace('-', '')[-12:]}"
    async with aiodocker.Docker(url=docker_world._host) as docker:
        await (await docker.networks.get(name)).delete()
    handle = await begin(driver, docker_world.spec(Life(code="print('there')")))
    assert [line.text for line in await read(driver, handle)] == ["there"]
    assert await driver.recover(handle) is Liveness.EXITED


async def test_a_network_that_was_made_anew_is_enclosed_before_a_run_starts_in_it(docker_world: DockerWorld) -> None:
    driver = await docker_world.driver()
    enclosure = await driver.enclose([("192.0.2.1", 4201)])
    if not enclosure.holds and not in_ci():
        pytest.skip(enclosure.reason)
    name = network_name(docker_world.instance_id)
    first = bridge_of(nftables.comments(name))
    async with aiodocker.Docker(url=docker_world._host) as docker:
        await (await docker.networks.get(name)).delete()
    code = "import time; print('there', flush=True); time.sleep(60)"
    handle = await begin(driver, docker_world.spec(Life(code=code)))
    second = bridge_of(nftables.comments(name))
    assert second is not None
    assert second != first
    assert second in {interface for _, interface in socket.if_nameindex()}
    assert await driver.recover(handle) is Liveness.RUNNING


async def test_what_a_run_has_opened_while_no_rules_stood_ends_with_them(docker_world: DockerWorld) -> None:
    driver = await docker_world.driver()
    host = await driver.bind_host()
    assert host is not None
    listener = await anyio.create_tcp_listener(local_host=host)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)

    async def echo(stream: anyio.abc.SocketStream) -> None:
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            async with stream:
                while True:
                    await stream.send(await stream.receive())

    code = (
        "import socket, time\n"
        f"peer = socket.create_connection(({host!r}, {port}), 3)\n"
        "for n in range(600):\n"
        " try: peer.send(b'x'); peer.recv(1)\n"
        " except OSError: print('cut', flush=True); break\n"
        " if n == 0: print('open', flush=True)\n"
        " time.sleep(0.1)\n"
    )
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, echo)
            handle = await begin(driver, docker_world.spec(Life(code=code)))
            async with driver.logs(handle, LogCursor()) as lines:
                told = aiter(lines)
                assert (await anext(told)).text == "open"
                enclosure = await driver.enclose([])
                if not enclosure.holds and not in_ci():
                    pytest.skip(enclosure.reason)
                with anyio.fail_after(30):
                    assert (await anext(told)).text == "cut"
            tasks.cancel_scope.cancel()
    finally:
        await listener.aclose()


# The volume with the runs' files


async def volume_of(docker_world: DockerWorld, handle: Handle) -> str:
    """The name of the volume that its container has at the place of the shared files."""
    async with aiodocker.Docker(url=docker_world._host) as docker:
        shown = await docker.containers.container(handle.data["id"]).show()
    (name,) = [mount["Name"] for mount in shown["Mounts"] if mount["Destination"] == HOME]
    return str(name)


async def test_root_in_a_run_cannot_write_where_all_runs_read(docker_world: DockerWorld) -> None:
    code = (
        "import os, pathlib, subprocess\n"
        "assert os.getuid() == 0\n"
        f"home = pathlib.Path({HOME!r})\n"
        "ways = [\n"
        " lambda: (home / 'shim.py').write_text('print()'), lambda: (home / 'new').write_text(''), lambda: (home / 'shim.py').unlink(),\n"
        " lambda: (home / 'python').rename(home / 'other'), lambda: os.chmod(home, 0o777), lambda: os.utime(home / 'shim.py'),\n"
        " lambda: os.chown(home / 'shim.py', 1, 1), lambda: os.link(home / 'shim.py', home / 'link'),\n"
        "]\n"
        "for way in ways:\n try: way(); print('written')\n except OSError as error: print(error.strerror)\n"
        f"print(subprocess.run(['mount', '-o', 'remount,rw', {HOME!r}], capture_output=True).returncode != 0)\n"
        f"print(subprocess.run(['umount', {HOME!r}], capture_output=True).returncode != 0)"
    )
    _, lines = await lived(docker_world, Life(code=code))
    assert lines == ["Read-only file system"] * 8 + ["True"] * 2


async def test_nothing_of_an_image_gets_among_the_shared_files(docker_world: DockerWorld) -> None:
    """Neither in the place where runs read them, nor from a volume that the engine makes for a run."""
    driver = await docker_world.driver(DockerSettings(ca_bundle=docker_world.instance_id.encode()))
    base = await begin(driver, docker_world.spec(Life(code="")))
    await driver.wait(base)
    seed = docker_world.spec(Life())
    async with aiodocker.Docker(url=docker_world._host) as docker:
        body = {
            "Image": seed.image,
            "Cmd": ["sh", "-c", f"mkdir -p {HOME}/python; echo 'raise OSError' > {HOME}/python/json.py"],
        }
        hostile = await docker.containers.create(body)
        image = f"managedd-tests/hostile:{docker_world.instance_id}"
        try:
            await hostile.start()
            await hostile.wait()
            await hostile.commit(repository="managedd-tests/hostile", tag=docker_world.instance_id)
            await driver.remove(base)
            await (await docker.volumes.get(await made_volume(docker, docker_world.instance_id))).delete()
            code = f"import pathlib; print(sorted(str(p) for p in pathlib.Path({HOME!r}).rglob('*.py')))"
            handle = await begin(driver, docker_world.spec(Life(code=code), image=image))
            lines = [line.text for line in await read(driver, handle)]
            await driver.remove(handle)
        finally:
            await hostile.delete(force=True)
            await docker.images.delete(image, force=True)
    assert lines == [
        str([f"{HOME}/python/managedd_run_git.py", f"{HOME}/python/managedd_run_log.py", f"{HOME}/shim.py"])
    ]


async def made_volume(docker: aiodocker.Docker, instance_id: str) -> str:
    """The name of that daemon's only volume."""
    found = await docker.volumes.list(filters={"label": f"managedd.instance={instance_id}"})
    (name,) = [volume["Name"] for volume in found["Volumes"]]
    return str(name)


async def test_a_volume_that_somebody_pruned_is_made_again(docker_world: DockerWorld) -> None:
    driver = await docker_world.driver()
    first = await begin(driver, docker_world.spec(Life(code="print('first')")))
    before = await volume_of(docker_world, first)
    async with aiodocker.Docker(url=docker_world._host) as docker:
        with pytest.raises(aiodocker.DockerError, match="in use"):
            await (await docker.volumes.get(before)).delete()
        assert [line.text for line in await read(driver, first)] == ["first"]
        await driver.remove(first)
        await (await docker.volumes.get(before)).delete()
        handle = await begin(driver, docker_world.spec(Life(code="print('there')")))
        assert [line.text for line in await read(driver, handle)] == ["there"]
        assert await volume_of(docker_world, handle) != before
        await driver.remove(handle)
        # The empty one that the engine made under the old name is gone as well.
        names = [volume["Name"] for volume in (await docker.volumes.list())["Volumes"]]
    assert [name for name in names if name.startswith(volume_prefix(docker_world.instance_id))] != [before]
    assert before not in names


async def test_the_next_daemon_takes_the_volume_of_the_last(docker_world: DockerWorld) -> None:
    first = await begin(await docker_world.driver(), docker_world.spec(Life()))
    second = await begin(await docker_world.driver(), docker_world.spec(Life()))
    assert await volume_of(docker_world, first) == await volume_of(docker_world, second)
