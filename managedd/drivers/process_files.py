"""The folder of a run on this host: what is placed in it, and what can be read from it while the run lives and afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from managedd.drivers import folder_tree, run_environment, run_tree
from managedd.drivers.docker_end import MAX_BYTES, MAX_US, REPORT_MAX_BYTES, Report, parsed, plain, whole
from managedd.drivers.run_output import numbers
from managedd.model.drivers import ExitStatus, Liveness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

KILLED: Final = 137
TMP_MAX_LENGTH: Final = 72
"""A socket's address has 107 characters at most, and programs make theirs deep below TMPDIR."""
READ_BYTES: Final = 1024 * 1024
JSON_MAX_BYTES: Final = 16 * 1024 * 1024
_READING: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
"""Nobody waits for the other end of a pipe, or reads what a link leads to."""
PLACED: Final = ("supervisor.py", "run_tree.py", "run_output.py", "run_environment.py")
LAST_WORDS_BYTES: Final = 4096
CONTROL_GROUPS: Final = "/sys/fs/cgroup/"
SUPERVISOR_ENDED: Final = "the process that held it was killed or failed"


class RunFolder:
    """One run's folder, named by its execution."""

    def __init__(self, runs: Path, execution_id: str, group_parents: Iterable[str] = ()) -> None:
        self.path = runs / execution_id
        self.execution_id = execution_id
        self._group_parents = tuple(group_parents)
        """Where the daemon makes its runs' control groups now."""

    def written_bytes(self) -> int:
        """What the run's own files take on the disk; what vanishes meanwhile takes none."""
        return folder_tree.weigh(str(self.path))

    # --- making it -------------------------------------------------------------------------------------------------------

    def place(self, files: Mapping[str, tuple[bytes, int]], environment: Path, spec: Callable[[RunFolder], Mapping[str, Any]],
              install_env: Mapping[str, str]) -> None:  # fmt: skip
        """The folder is there with all that the run needs; `spec.json`, written last, makes it count."""
        if self.path.exists():
            self.remove()
        self.path.mkdir(mode=0o700, parents=True)
        for name in ("work", "home", "output", *self._own_tmp()):
            (self.path / name).mkdir()
        here = resources.files("managedd.drivers")
        given = {**files, **{name: ((here / name).read_bytes(), 0o644) for name in PLACED}}
        for name, (content, mode) in given.items():
            path = self.path / name
            path.parent.mkdir(exist_ok=True)
            _write(path, content, mode)
        if "requirements.txt" in files:
            # May hold an index's password: the installer takes it away with it.
            place = {"base": str(environment), "folder": str(environment.parent), "install_env": dict(install_env)}
            _write(self.path / "installing.json", json.dumps(place).encode(), 0o600)
        run_environment.lay_over(str(self.path / "env"), str(environment), str(self.path))
        _write(self.path / "lock", b"", 0o600)
        _write(self.path / "spec.json.new", json.dumps(spec(self)).encode(), 0o600)
        (self.path / "spec.json.new").rename(self.path / "spec.json")

    def _own_tmp(self) -> tuple[str, ...]:
        return ("tmp",) if len(str(self.path / "tmp")) <= TMP_MAX_LENGTH else ()

    def base_environment(self, path: str) -> dict[str, str]:
        """The variables that every run has, below its own."""
        found = {
            "HOME": str(self.path / "home"), "VIRTUAL_ENV": str(self.path / "env"), "LANG": "C.UTF-8", "TZ": "UTC", "PATH": path,
        }  # fmt: skip
        return found | ({"TMPDIR": str(self.path / "tmp")} if self._own_tmp() else {})

    def python(self) -> str:
        """The interpreter of the run's own environment."""
        return run_environment.python_of(str(self.path / "env"))

    # --- reading it ------------------------------------------------------------------------------------------------------

    def spec(self) -> dict[str, Any] | None:
        """What the run was made from; None when there is no whole folder."""
        return _json(self.path / "spec.json")

    def state(self) -> dict[str, Any] | None:
        """What its supervisor has written down; None before its start."""
        return _json(self.path / "state.json")

    def started_ago(self) -> float | None:
        """How many seconds ago its supervisor began; None before its start."""
        started_us = whole(self.state() or {}, "started_us", MAX_US)
        return None if started_us is None else max(0, time.time_ns() // 1000 - started_us) / 1_000_000

    def liveness(self) -> Liveness:
        """Where the run stands."""
        if not (self.path / "spec.json").exists():
            return Liveness.GONE
        # Asked before: it begins with the state and ends with the lock.
        was_started = (self.path / "state.json").exists()
        if self._is_held():
            return Liveness.RUNNING
        if was_started or (self.path / "state.json").exists():
            return Liveness.EXITED
        return Liveness.CREATED

    def _is_held(self) -> bool:
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def bury(self, seconds: float) -> None:
        """The end of a run whose supervisor has written none: nothing of it runs, and that it was killed is written down."""
        state = self.state()
        if state is None or "exit_code" in state:
            return
        self.kill(seconds)
        said = self._last_words()
        error = f"{SUPERVISOR_ENDED}: {said}" if said else SUPERVISOR_ENDED
        state |= {"exit_code": KILLED, "finished_us": self._last_sign_us(), "error": error}
        with contextlib.suppress(OSError):
            _write(self.path / "state.json.new", json.dumps(state).encode(), 0o600)
            (self.path / "state.json.new").rename(self.path / "state.json")

    def _last_sign_us(self) -> int:
        """When the run wrote or was written of last: when it ended nobody knows, and it may have been long before anybody looked."""
        paths = [self.path / name for name in ("state.json", "report.json", "supervisor.log")]
        with contextlib.suppress(OSError):
            output = self.path / "output"
            paths += [output / str(number) for number in numbers(str(output))]
        found = []
        for path in paths:
            with contextlib.suppress(OSError):
                found.append(path.stat(follow_symlinks=False).st_mtime_ns // 1000)
        # The run can set those, and a clock may have been set since.
        return min(time.time_ns() // 1000, max(found, default=0))

    def kill(self, seconds: float) -> bool:
        """Nothing of the run is there any more; False when something could not be killed in that time."""
        state = self.state() or {}
        # Where the host was started anew since, nobody of it is left, and its ticks are others.
        since = whole(state, "started_ticks", 1 << 62) if state.get("boot_id") == run_tree.boot_id() else None
        groups = {os.path.join(parent, self.execution_id) for parent in self._group_parents}
        # The run can write those: a file elsewhere must not name others' processes.
        groups |= {group for group in self._groups(state) if os.path.normpath(group).startswith(CONTROL_GROUPS)}
        return run_tree.kill_marked(
            self.execution_id, str(self.path), seconds, groups=sorted(groups), since_ticks=since
        )

    def _groups(self, state: Mapping[str, Any]) -> list[str]:
        """The run's own control groups, by its supervisor's word."""
        groups = state.get("groups")
        found = groups.values() if type(groups) is dict else ()
        return [group for group in found if type(group) is str and os.path.basename(group) == self.execution_id]

    def _last_words(self) -> str:
        """What its supervisor has printed last: it prints only when it fails."""
        with contextlib.suppress(OSError), open(os.open(self.path / "supervisor.log", _READING), "rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode):
                file.seek(max(0, found.st_size - LAST_WORDS_BYTES))
                lines = file.read(LAST_WORDS_BYTES).decode(errors="replace").strip().splitlines()
                return lines[-1].strip() if lines else ""
        return ""

    def status(self) -> ExitStatus:
        """How the run ended, from what its supervisor and its shim have left. The run can write both: they decide nothing beyond it."""
        state = self.state()
        if state is None:
            return ExitStatus(exit_code=None, gone=True, error="its folder was removed while the run was under way")
        report = self._report()
        peaks = [whole(state, "peak_memory_bytes", MAX_BYTES) or 0, report.peak_memory_bytes or 0]
        error = report.install_error or state.get("error")
        return ExitStatus(
            exit_code=whole(state, "exit_code", 255),
            oom_killed=bool(state.get("oom_killed")),
            peak_memory_bytes=max(peaks) or None,
            started_at_us=whole(state, "started_us", MAX_US),
            finished_at_us=whole(state, "finished_us", MAX_US),
            host_restarted=state.get("boot_id") != run_tree.boot_id(),
            install_failed=report.install_error is not None,
            installed_at_us=report.installed_us,
            out_of_time=bool(state.get("out_of_time")),
            unsupported=self._not_held(state),
            error=plain(error) if isinstance(error, str) else None,
        )

    def _not_held(self, state: Mapping[str, Any]) -> tuple[str, ...]:
        held, asked = state.get("groups"), (self.spec() or {}).get("limits_by_group")
        if type(held) is not dict or type(asked) is not list:
            return ()
        return tuple(name for name in ("cpu", "pids") if name in asked and name not in held)

    def _report(self) -> Report:
        return parsed(_content(self.path / "report.json", max_bytes=REPORT_MAX_BYTES))

    # --- removing it -----------------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """The folder is gone, and so are its control groups. Raises OSError."""
        state = self.state() or {}
        if os.getpid() == 1 and (pid := whole(state, "pid", 1 << 22)):
            # In a container of our own, whom nobody else reaps is ours.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        for group in self._groups(state):
            with contextlib.suppress(OSError, ValueError):
                os.rmdir(group)
        # First, so that half a folder never counts as a run.
        folder_tree.remove(str(self.path), first="spec.json")


class OutputFiles:
    """Reads what a run has printed, from file to file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._file = -1

    def read(self) -> bytes:
        """The next bytes; none when there are no more now."""
        while True:
            # Asked before reading: a file that has a successor gets nothing more.
            later = [number for number in numbers(str(self._folder)) if number > self._number]
            if self._file >= 0 and (data := os.read(self._file, READ_BYTES)):
                return data
            if not later:
                return b""
            self.close()
            with contextlib.suppress(FileNotFoundError):  # it was the oldest, and went
                self._file = os.open(self._folder / str(later[0]), _READING)
            self._number = later[0]

    def close(self) -> None:
        """The file is closed."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _content(path: Path, *, max_bytes: int) -> bytes | None:
    """What the file holds; None when there is none, or it is no plain file, or larger. The run may have put anything in its place."""
    try:
        opened = os.open(path, _READING)
    except OSError:
        return None
    with open(opened, "rb") as file:
        found = os.fstat(opened)
        return file.read(max_bytes) if stat.S_ISREG(found.st_mode) and found.st_size <= max_bytes else None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(_content(path, max_bytes=JSON_MAX_BYTES) or b"null")
    except (OSError, ValueError, RecursionError):
        return None
    return found if type(found) is dict else None


def _write(path: Path, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb") as file:
        file.write(content)
