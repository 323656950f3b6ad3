"""The lock of a data directory, between objects and between processes."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from managedd.errors import ErrorCode, ManagedError
from managedd.store.lock import DataDirLock, holder, is_locked

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import subprocess
import sys
from pathlib import Path
from managedd.store.lock import DataDirLock
with DataDirLock(Path(sys.argv[1])):
    print("held", flush=True)
    if "child" in sys.argv:
        child = subprocess.Popen(["sleep", "60"], close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        print(child.pid, flush=True)
    sys.stdin.read()
"""


def other_daemon(data_dir: Path, *, with_child: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(data_dir), *(["child"] if with_child else [])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=20)


def test_the_file_is_private_and_names_its_holder(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert holder(tmp_path) is None
    with DataDirLock(tmp_path) as lock:
        assert lock.path == tmp_path / "managedd.lock"
        assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
        assert lock.path.read_text() == f"{os.getpid()}\n"
        assert is_locked(tmp_path)
        assert holder(tmp_path) == os.getpid()
    assert not is_locked(tmp_path)
    assert holder(tmp_path) is None


def test_a_second_daemon_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    process = other_daemon(tmp_path)
    try:
        assert is_locked(tmp_path)
        assert holder(tmp_path) == process.pid
        with pytest.raises(ManagedError) as caught:
            DataDirLock(tmp_path).acquire()
        assert caught.value.code is ErrorCode.CONFIG
        assert f"process {process.pid} already runs managedd" in caught.value.message
        assert str(tmp_path) in caught.value.message
        assert caught.value.detail == {"pid": process.pid}
    finally:
        end(process)
    with DataDirLock(tmp_path):
        assert is_locked(tmp_path)


def test_a_killed_daemon_leaves_no_lock(tmp_path: Path) -> None:
    process = other_daemon(tmp_path)
    process.send_signal(signal.SIGKILL)
    end(process)
    assert not is_locked(tmp_path)
    assert holder(tmp_path) is None
    with DataDirLock(tmp_path) as lock:
        assert lock.path.read_text() == f"{os.getpid()}\n"


def test_children_of_a_killed_daemon_do_not_hold_its_lock(tmp_path: Path) -> None:
    process = other_daemon(tmp_path, with_child=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    end(process)
    try:
        os.kill(child, 0)
        assert not is_locked(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_released_lock_is_free_at_once_also_while_a_child_starts(tmp_path: Path) -> None:
    with DataDirLock(tmp_path):
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, text=True, close_fds=False
        )
    locked = is_locked(tmp_path)
    child.communicate("", timeout=20)
    assert not locked


def test_acquiring_and_releasing_twice_changes_nothing(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    lock.acquire()
    lock.acquire()
    lock.release()
    lock.release()
    assert not is_locked(tmp_path)


def test_a_probe_does_not_make_a_daemon_fail(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "managedd.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    probe = threading.Timer(0.03, os.close, [descriptor])
    probe.start()
    with DataDirLock(tmp_path):
        assert is_locked(tmp_path)
    probe.join()


def test_a_missing_folder_and_a_link_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManagedError, match="can't be opened") as caught:
        DataDirLock(tmp_path / "nowhere").acquire()
    assert caught.value.code is ErrorCode.CONFIG
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "managedd.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(ManagedError, match="can't be opened"):
        DataDirLock(tmp_path).acquire()
    assert (tmp_path / "victim").read_text() == "precious"
