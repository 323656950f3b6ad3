"""A Docker engine that answers: the running one, or one of our own that lives exactly as long as somebody uses it.

Everyone who needs the engine holds a shared lock on one file while using it. The last to let go stops the engine, and only when
the record beside that file says that provisioning started it and that nobody asked to keep it.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO
from urllib.parse import urlsplit

from tests.support.steps import STATE, CannotProvisionError, debian_root, install_packages, locked, step, tail

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET = "unix:///var/run/docker.sock"
# Machine-wide, because the engine is: two checkouts that test at once share it.
SHARED = Path("/run/managedd-tests") if os.geteuid() == 0 else STATE
RECORD = SHARED / "engine.json"
OUTPUT = STATE / "dockerd.log"
START_SECONDS = 60.0
STOP_SECONDS = 30.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def answers(host: str) -> bool:
    """True when a Docker engine answers a ping at the address."""
    address = urlsplit(host)
    connection: http.client.HTTPConnection
    if address.scheme == "unix":
        connection = _UnixConnection(address.path)
    elif address.scheme in {"tcp", "http"} and address.hostname:
        connection = http.client.HTTPConnection(address.hostname, address.port or 2375, timeout=5)
    else:
        return False
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def running_engine() -> str | None:
    """The address of an engine that answers now: DOCKER_HOST's alone when that is set, else the system's, else the user's."""
    if named := os.environ.get("DOCKER_HOST"):
        return named if answers(named) else None
    own = f"unix://{os.environ.get('XDG_RUNTIME_DIR', '/nonexistent')}/docker.sock"
    return next((host for host in (SOCKET, own) if answers(host)), None)


def ensure_engine(*, keep: bool = False) -> str:
    """An engine answers at the returned address; with `keep` it outlives this process and every other user of it."""
    with locked(SHARED / "door"):
        host = running_engine()
        if host is None:
            host = _start()
        if keep and (record := _record()) is not None:
            _write_record({**record, "keep": True})
        return host


@contextlib.contextmanager
def engine_in_use(*, keep: bool = False) -> Iterator[str]:
    """An engine answers at the yielded address until the block ends; ours is stopped after its last user."""
    SHARED.mkdir(parents=True, exist_ok=True)
    with (SHARED / "users").open("a") as users:
        # Shared before the door opens: whoever holds the door to stop the engine sees us, or we find it stopped.
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield ensure_engine(keep=keep)
        finally:
            _leave(users)


def stop_engine() -> bool:
    """The engine that provisioning started is gone, kept or not; False when there was none of ours."""
    with locked(SHARED / "door"):
        return _stop()


def _leave(users: TextIO) -> None:
    with locked(SHARED / "door"):
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(users, fcntl.LOCK_UN)  # inside the door, or the last to leave could take us for a user
            return
        record = _record()
        if record is None or not record["keep"]:
            _stop()


def _start() -> str:
    if named := os.environ.get("DOCKER_HOST"):
        raise CannotProvisionError(f"no Docker engine answers at DOCKER_HOST ({named})")
    socket_path = Path(urlsplit(SOCKET).path)
    if socket_path.is_socket() and not os.access(socket_path, os.R_OK | os.W_OK):
        raise CannotProvisionError(
            f"this user may not open {socket_path}; on most hosts those in the group docker may, after a new login"
        )
    if not debian_root() and not (os.geteuid() == 0 and shutil.which("dockerd")):
        raise CannotProvisionError(
            "no Docker engine answers at /var/run/docker.sock, and only root on Debian can have one installed and started"
        )
    install_packages({"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables"})
    if answers(SOCKET):
        return SOCKET  # the package's own service has started it: the machine's engine, not ours
    for stale in (Path("/var/run/docker.pid"), Path("/var/run/docker/containerd/containerd.pid")):
        _remove_stale_pid_file(stale)
    STATE.mkdir(parents=True, exist_ok=True)
    with step("starting dockerd"), OUTPUT.open("w") as output:
        pid = _spawn(["dockerd", "--host", SOCKET], output)
        _write_record({"pid": pid, "started": _start_ticks(pid), "keep": False})
        deadline = time.monotonic() + START_SECONDS
        while not answers(SOCKET):
            if not _alive(pid) or time.monotonic() > deadline:
                _stop()
                raise CannotProvisionError(f"dockerd does not start here:\n{_complaints()}")
            time.sleep(0.1)
    return SOCKET


def _spawn(command: list[str], output: TextIO) -> int:
    """The command runs in a session of its own; it is meant to outlive this process, so there is no object to wait on."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    program = shutil.which(command[0], path=path) or command[0]
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
        (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
    ]
    return os.posix_spawn(program, command, {**os.environ, "PATH": path}, file_actions=files, setsid=True)


def _complaints() -> str:
    """What dockerd said that is more than information; all of its last words when it complained of nothing."""
    said = OUTPUT.read_text(errors="replace")
    worse = [line for line in said.splitlines() if "level=info" not in line and "level=warning" not in line]
    return tail("\n".join(worse) or said)


def _stop() -> bool:
    record = _record()
    if record is None:
        RECORD.unlink(missing_ok=True)  # of an engine that died by itself
        return False
    pid = int(record["pid"])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while _alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        # dockerd leads its own session, so its containerd is in the same group.
        if _alive(pid):
            os.killpg(pid, signal.SIGKILL)
    RECORD.unlink(missing_ok=True)
    return True


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # ours to reap when this process started it
    return _start_ticks(pid) is not None


def _record() -> dict[str, int | bool] | None:
    """What is known of the engine we started, when that very process still runs."""
    try:
        record: dict[str, int | bool] = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        return None
    return record if _start_ticks(int(record["pid"])) == record["started"] else None


def _write_record(record: dict[str, int | bool | None]) -> None:
    new = RECORD.with_suffix(".new")
    new.write_text(json.dumps(record))
    new.rename(RECORD)


def _start_ticks(pid: int) -> int | None:
    """When the process started, which tells it from a later one with the same id; None when it runs no more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _remove_stale_pid_file(path: Path) -> None:
    """The file is gone unless it names a living engine; a reused process id would keep a new engine from starting."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(path.read_text())
        name = Path(f"/proc/{pid}/comm")
        if not name.exists() or name.read_text().strip() not in {"dockerd", "containerd"}:
            path.unlink()
