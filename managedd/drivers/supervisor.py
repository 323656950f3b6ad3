"""The process that holds a run where no container engine does: its parent to the end, whether the daemon lives or not.

Placed inside the run and executed by the Python of its environment (3.9 or newer): standard library alone, and the files beside it. It
starts the shim, stores what the run prints, holds the limits on memory and time over the whole family of processes, answers on the
socket `s`, and leaves in `state.json` how it ended. That it lives is told by the lock on the file `lock`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from managedd.drivers import run_output, run_tree
else:
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    import run_output
    import run_tree

HERE = os.path.dirname(os.path.abspath(__file__))
LOCK_SECONDS = 2.0
"""How long a lock that somebody only looks at may keep us waiting."""
KILLED = 137
CANNOT_START = 127
DRAIN_SECONDS = 2.0
"""How long the pipes may stay open when every process that we know of has ended."""
KILL_SECONDS = 10.0
PIPE_BYTES = 256 * 1024
FASTEST_BYTES_PER_SECOND = 4 * 1024**3
"""No family takes memory faster; from it follows how long nobody has to look."""
LOOK_SECONDS = (0.02, 0.5)
UNWATCHED_LOOK_SECONDS = 2.0
"""Between two readings where the kernel holds the limit."""
OOM_SCORE = "500"
"""When the host itself runs out of memory, runs go before the daemon."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
COMMAND_BYTES = 256


class State:
    """`state.json`, replaced as a whole each time."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {"version": 1}

    def begin(self) -> None:
        """The run counts as started from now on: nobody will start it again. Raises OSError."""
        self._fields.update(started_us=_now_us(), boot_id=run_tree.boot_id(), started_ticks=run_tree.own_start_ticks())
        self._replace()

    def write(self, **fields: Any) -> None:
        """The file has these fields too; a full disk is not worth the run."""
        self._fields.update(fields)
        with contextlib.suppress(OSError):
            self._replace()

    def _replace(self) -> None:
        with open("state.json.new", "w", encoding="utf-8") as file:
            json.dump(self._fields, file)
        os.replace("state.json.new", "state.json")


class Supervisor:
    """One run, from its first process to the end of its last."""

    def __init__(self, spec: dict[str, Any], listener: socket.socket, state: State) -> None:
        self._spec = spec
        self._listener = listener
        self._state = state
        self._poll = select.poll()
        self._output = run_output.Output(
            "output", max_bytes=spec["output_max_bytes"], max_files=spec["output_max_files"]
        )
        self._pipes: dict[int, int] = {}
        """Reading end → stream."""
        self._asking: dict[int, socket.socket] = {}
        self._waiting: dict[int, socket.socket] = {}
        """They learn of the end."""
        self._followers: dict[int, socket.socket] = {}
        """They learn of what is printed, too."""
        self._woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._told_to_stop = False
        self._child = 0
        self._code: int | None = None
        self._kill_at: float | None = None
        limit = spec["time_limit_seconds"]
        self._ends_at = None if limit is None else time.monotonic() + limit
        self._groups: dict[str, str] = {}
        self._memory_is_watched = spec["memory_bytes"] is not None
        self._look_at = 0.0
        self._usage = run_tree.Usage(0, 0.0, 0)
        self._peak_bytes = 0
        self._out_of_memory = False
        self._out_of_time = False

    def run(self) -> None:
        """The run has ended, and `state.json` says how."""
        self._state.write(pid=os.getpid())
        self._make_groups()
        self._poll.register(self._woken, select.POLLIN)
        self._poll.register(self._listener, select.POLLIN)
        self._start()
        while self._code is None:
            self._turn()
        self._end()

    # --- one turn --------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Whatever is there was dealt with; waits until something is, or a moment has come."""
        for descriptor, _ in self._poll.poll(self._pause_ms()):
            if descriptor == self._woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
            elif descriptor == self._listener.fileno():
                self._accept()
            elif descriptor in self._pipes:
                self._read(descriptor)
            elif descriptor in self._asking:
                self._answer(descriptor)
            else:
                # Who has asked has nothing more to say: it has gone.
                self._forget(descriptor)
        self._reap()
        if self._told_to_stop:
            self._told_to_stop = False
            self._stop(self._spec["stop_grace_seconds"])
        now = time.monotonic()
        if self._code is None and now >= self._look_at:
            self._look(now)
        if self._ends_at is not None and now >= self._ends_at and self._kill_at is None:
            self._out_of_time = True
            self._stop(self._spec["stop_grace_seconds"])
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_all()
            self._kill_at = now + 1.0

    def _pause_ms(self) -> int:
        moments = [self._look_at]
        moments += [] if self._kill_at is None else [self._kill_at]
        moments += [] if self._ends_at is None or self._kill_at is not None else [self._ends_at]
        return max(0, min(60_000, int((min(moments) - time.monotonic()) * 1000) + 1))

    def _on_signal(self, number: int, _frame: Any) -> None:
        if number != signal.SIGCHLD:
            self._told_to_stop = True

    def _read(self, pipe: int) -> None:
        data = os.read(pipe, PIPE_BYTES)
        if not data:
            self._poll.unregister(pipe)
            del self._pipes[pipe]
            os.close(pipe)
            return
        self._output.take(self._pipes[pipe], data)
        self._tell()

    def _tell(self) -> None:
        """Whoever follows knows that there is more; who has not looked yet knows it already."""
        for follower in self._followers.values():
            with contextlib.suppress(OSError):
                follower.send(b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child:
                code = os.waitstatus_to_exitcode(status)
                self._code = code if code >= 0 else 128 - code

    # --- limits ----------------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """The family's use of memory is known, and it lives only when it is within its limit."""
        limit = self._spec["memory_bytes"]
        self._usage = run_tree.usage(run_tree.descendants(os.getpid()), limit)
        self._peak_bytes = max(self._peak_bytes, self._usage.memory_bytes)
        if not os.path.exists("spec.json"):
            # The folder was removed from outside: nobody will ask for this run again.
            self._kill_all()
        pause = UNWATCHED_LOOK_SECONDS
        if self._memory_is_watched:
            left = limit - self._usage.memory_bytes
            if left < 0:
                self._out_of_memory = True
                self._kill_all()
            pause = min(max(left / FASTEST_BYTES_PER_SECOND, LOOK_SECONDS[0]), LOOK_SECONDS[1])
        self._look_at = now + pause

    def _stop(self, grace_seconds: float) -> None:
        """The run was asked to end; it is killed when it has not done so within the grace."""
        kill_at = time.monotonic() + grace_seconds
        if self._kill_at is None:
            run_tree.kill([self._child], signal.SIGTERM)
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)

    def _kill_all(self) -> None:
        run_tree.kill_below(os.getpid())

    # --- the control groups ----------------------------------------------------------------------------------------------

    def _make_groups(self) -> None:
        """The run's own control groups exist where the daemon has found that they may, with its limits."""
        for controller, parent in self._spec["groups"].items():
            group = os.path.join(parent, os.path.basename(HERE))
            try:
                os.makedirs(group, exist_ok=True)
                for name, value in self._spec["group_limits"].get(controller, {}).items():
                    with open(os.path.join(group, name), "w", encoding="ascii") as file:
                        file.write(value)
            except OSError:
                if group not in self._groups.values():  # one group may hold several limits
                    with contextlib.suppress(OSError):
                        os.rmdir(group)
                continue
            self._groups[controller] = group
        # Before anybody is in them: whoever finds us killed looks there.
        self._state.write(groups=self._groups)

    def _enter_groups(self) -> bytes:
        """We are in the run's groups as far as the kernel lets us; the returned text names these, each in a line."""
        entered = b""
        for controller, group in self._groups.items():
            with contextlib.suppress(OSError):
                with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as file:
                    file.write(str(os.getpid()))
                entered += f"{controller}\n".encode()
        return entered

    def _keep_groups(self, entered: list[str]) -> None:
        """Only groups that hold the run count; memory is watched unless one does."""
        made, self._groups = self._groups, {name: group for name, group in self._groups.items() if name in entered}
        for group in set(made.values()) - set(self._groups.values()):
            with contextlib.suppress(OSError):
                os.rmdir(group)
        if "memory" in self._groups:
            self._memory_is_watched = False
        self._state.write(groups=self._groups)

    def _measure_groups(self) -> None:
        group = self._groups.get("memory")
        if group is None:
            return
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                with open(os.path.join(group, name), encoding="ascii") as file:
                    self._peak_bytes = max(self._peak_bytes, int(file.read()))
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                with open(os.path.join(group, name), encoding="ascii") as file:
                    counts = dict(line.split() for line in file)
                self._out_of_memory = self._out_of_memory or int(counts.get("oom_kill", 0)) > 0

    def _leave_groups(self) -> None:
        for group in self._groups.values():
            for _ in range(20):
                try:
                    os.rmdir(group)
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)  # the kernel is still counting the last process out

    # --- the beginning and the end ---------------------------------------------------------------------------------------

    def _start(self) -> None:
        ends: list[int] = []
        for stream in (run_output.STDOUT, run_output.STDERR):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            self._pipes[reading] = stream
            self._poll.register(reading, select.POLLIN | select.POLLHUP)
            ends.append(writing)
        prctl = _prctl()
        told, telling = os.pipe2(os.O_CLOEXEC)
        self._child = os.fork()
        if self._child == 0:
            try:
                self._become_the_shim(ends, telling, prctl)
            except OSError as error:
                os.write(2, f"{self._spec['shim'][0]} cannot be started: {error.strerror}\n".encode())
            finally:
                os._exit(CANNOT_START)
        for end in (*ends, telling):
            os.close(end)
        with open(told, encoding="ascii") as file:
            # Its end is that of the child's own part, or of the child.
            self._keep_groups(file.read().split())

    def _become_the_shim(self, ends: list[int], telling: int, prctl: Any) -> NoReturn:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # Before anybody is told that we are there: a signal to us must not be taken by a handler of the supervisor's.
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.write(telling, self._enter_groups())
        os.close(telling)
        with contextlib.suppress(OSError):
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(OOM_SCORE)
        os.umask(0o022)
        for descriptor, end in enumerate(ends, 1):
            os.dup2(end, descriptor)
        os.chdir("work")
        os.execve(self._spec["shim"][0], self._spec["shim"], self._spec["env"])  # noqa: S606 (the run's own command)

    def _end(self) -> None:
        """Nothing of the family is left, what it printed is stored, and the end is written down."""
        deadline = time.monotonic() + KILL_SECONDS
        while (left := run_tree.descendants(os.getpid())) and time.monotonic() < deadline:
            run_tree.kill_below(os.getpid())
            self._reap()
            if left:
                time.sleep(0.005)
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._pipes and time.monotonic() < deadline:
            for descriptor, _ in self._poll.poll(100):
                if descriptor in self._pipes:
                    self._read(descriptor)
        self._output.finish()
        self._measure_groups()
        self._state.write(
            exit_code=self._code,
            finished_us=_now_us(),
            oom_killed=self._out_of_memory,
            out_of_time=self._out_of_time,
            peak_memory_bytes=self._peak_bytes or None,
        )
        self._leave_groups()

    # --- the socket ------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._asking[connection.fileno()] = connection
            self._poll.register(connection, select.POLLIN | select.POLLHUP)

    def _answer(self, descriptor: int) -> None:
        """`follow`: a byte for each news, and the end of the connection at the end. `wait`, `stop SECONDS`: its end only. `usage`: a line."""
        connection = self._asking[descriptor]
        try:
            words = connection.recv(COMMAND_BYTES).split()
        except OSError:
            words = []
        if words[:1] == [b"usage"]:
            self._usage = run_tree.usage(run_tree.descendants(os.getpid()), None)
            said = {
                "memory_bytes": self._usage.memory_bytes, "peak_memory_bytes": max(self._peak_bytes, self._usage.memory_bytes),
                "cpu_seconds": self._usage.cpu_seconds, "tasks": self._usage.tasks,
            }  # fmt: skip
            with contextlib.suppress(OSError):
                connection.send(json.dumps(said).encode() + b"\n")
            self._forget(descriptor)
            return
        if words[:1] == [b"stop"]:
            with contextlib.suppress(ValueError, IndexError):
                self._stop(float(words[1]))
        if words[:1] in ([b"stop"], [b"wait"]):
            self._waiting[descriptor] = self._asking.pop(descriptor)
        elif words[:1] == [b"follow"]:
            self._followers[descriptor] = self._asking.pop(descriptor)
        else:
            self._forget(descriptor)

    def _forget(self, descriptor: int) -> None:
        for group in (self._asking, self._waiting, self._followers):
            connection = group.pop(descriptor, None)
            if connection is not None:
                self._poll.unregister(descriptor)
                connection.close()


def _now_us() -> int:
    return time.time_ns() // 1000


def _prctl() -> Any:
    import ctypes  # noqa: PLC0415 (some builds of Python lack it: then the launcher says so)

    return ctypes.CDLL(None, use_errno=True).prctl


def take_lock() -> int | None:
    """The lock is ours as long as we live; None when this run was started before."""
    lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        if os.path.exists("state.json"):
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.002)
        else:
            # Looked at once more: it may have lived and ended between the two.
            return None if os.path.exists("state.json") else lock


def main() -> int:
    """The run's supervisor lives in a session of its own, or one did before; a message on standard error says why not."""
    os.chdir(HERE)
    lock = take_lock()
    if lock is None:
        return 0
    with open("spec.json", encoding="utf-8") as file:
        spec = json.load(file)
    _prctl()(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # fails here, where somebody hears it
    with contextlib.suppress(FileNotFoundError):
        os.unlink("s")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Relative: an absolute path may be longer than an address can be.
    listener.bind("s")
    listener.listen(64)
    listener.setblocking(False)
    state = State()
    state.begin()
    if os.fork() > 0:
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    os.dup2(os.open("supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    _prctl()(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    Supervisor(spec, listener, state).run()
    # The connections end with the process: who sees that finds the lock free, and nobody in the folder.
    os.chdir("/")
    os.close(lock)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
