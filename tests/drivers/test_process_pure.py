"""What the process driver's parts do with values and folders alone: output, control groups, the trees of processes."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.drivers import process_cgroup, run_tree
from managedd.drivers.docker_logs import LogReader
from managedd.drivers.process_files import OutputFiles, RunFolder
from managedd.drivers.run_output import STDERR, STDOUT, Output
from managedd.model.drivers import RunSpec
from managedd.model.logs import LogCursor, RawLine, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECOND_NS = 1_000_000_000


def told(folder: Path, after: LogCursor | None = None) -> list[RawLine]:
    reader, files = LogReader(after or LogCursor()), OutputFiles(folder)
    lines = []
    while data := files.read():
        lines += reader.feed(data)
    files.close()
    return [*lines, *reader.finish()]


printed = st.lists(
    st.tuples(
        st.sampled_from([STDOUT, STDERR]), st.binary(max_size=40) | st.just(b"x" * 20_000) | st.just(b"a line\nand\n")
    ),
    max_size=30,
)


@given(printed, st.integers(100, 50_000), st.integers(-5, 5))
def test_what_was_printed_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, data: list[tuple[int, bytes]], max_bytes: int, step: int
) -> None:
    """Cut anywhere, over any number of files, under a clock that stands still or steps back; and after every cursor."""
    folder = tmp_path_factory.mktemp("output")
    clock = itertools.count(1_700_000_000 * SECOND_NS, step * SECOND_NS)
    output = Output(str(folder), max_bytes=max_bytes, max_files=1000, clock_ns=lambda: next(clock))
    for stream, part in data:
        output.take(stream, part)
    output.finish()
    lines = told(folder)
    cursors = [line.cursor for line in lines]
    assert cursors == sorted(set(cursors))
    for stream, name in ((STDOUT, Stream.STDOUT), (STDERR, Stream.STDERR)):
        whole = b"".join(part for one, part in data if one == stream)
        wanted = LogReader(LogCursor())
        # The reader's own business is what it makes of carriage returns and long lines.
        head = bytes((stream, 0, 0, 0))
        payload = b"2026-01-01T00:00:00.000000001Z " + whole
        expected = wanted.feed(head + len(payload).to_bytes(4, "big") + payload) + wanted.finish()
        assert [line.text for line in lines if line.stream is name] == [line.text for line in expected]
    for number in range(0, len(lines), 7):
        assert told(folder, lines[number].cursor) == lines[number + 1 :]


def test_the_oldest_files_go(tmp_path: Path) -> None:
    output = Output(str(tmp_path), max_bytes=1000, max_files=2)
    for number in range(100):
        output.take(STDOUT, b"line %d\n" % number)
    output.finish()
    assert len(os.listdir(tmp_path)) == 2
    assert told(tmp_path)[-1].text == "line 99"


def test_a_full_disk_costs_lines_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(str(tmp_path), max_bytes=10_000, max_files=2)
    output.take(STDOUT, b"before\n")
    real, left = os.write, [5]

    def full(descriptor: int, data: bytes) -> int:
        if left:
            return real(descriptor, data[: left.pop()])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    output.take(STDOUT, b"lost\n")
    monkeypatch.undo()
    output.take(STDOUT, b"after\n")
    output.finish()
    assert [line.text for line in told(tmp_path)] == ["before", "after"]


def test_a_process_is_known_by_the_kernels_own_words() -> None:
    mine = run_tree.stat_of(os.getpid())
    assert mine is not None and mine.parent == os.getppid() and mine.threads >= 1 and mine.state == "R"
    assert run_tree.stat_of(2**22 + 1) is None
    assert os.getpid() in run_tree.descendants(os.getppid())
    # The slow way comes to the same.
    assert os.getpid() in run_tree._children_of_all()(os.getppid())


def test_swapped_memory_counts_where_there_is_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    page = run_tree.PAGE_BYTES
    files = {
        "/proc/7/statm": b"900 10 5 1 0 1 0\n",
        "/proc/7/status": b"Name:\tflow\nVmRSS:\t40 kB\nVmSwap:\t     300 kB\n",
        "/proc/7/smaps_rollup": b"Rss:  40 kB\nPss:  24 kB\nPss_Anon:  9 kB\nSwap:  300 kB\nSwapPss:  200 kB\n",
        "/proc/swaps": b"Filename\tType\tSize\n",
    }
    monkeypatch.setattr(run_tree, "_read", lambda path: files.get(path, b""))
    assert run_tree.usage([7], None).memory_bytes == 10 * page
    files["/proc/swaps"] += b"/dev/vda2 partition 1048576\n"
    assert run_tree.usage([7], None).memory_bytes == 10 * page + 300 * 1024
    # Near the limit by its share of each page, in memory and out of it.
    assert run_tree.usage([7], 300 * 1024).memory_bytes == 224 * 1024
    del files["/proc/7/smaps_rollup"]
    assert run_tree.usage([7], 300 * 1024).memory_bytes == 10 * page + 300 * 1024


def gone(process: subprocess.Popen[bytes]) -> bool:
    found = run_tree.stat_of(process.pid)
    return found is None or found.state in "ZX"


@pytest.fixture
def sleeper() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Processes that no variable marks."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin(cwd: str | Path = "/") -> subprocess.Popen[bytes]:
        begun.append(subprocess.Popen(["/bin/sleep", "60"], cwd=cwd, env={}, start_new_session=True))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def test_who_is_in_the_runs_group_goes_and_never_ourselves(tmp_path: Path, sleeper: Any) -> None:
    member, other = sleeper(), sleeper()
    # A zero stands for who is in none of our namespaces; as an address of a signal it would be all of us.
    (tmp_path / "cgroup.procs").write_text(f"0\n{os.getpid()}\n{member.pid}\n")
    assert run_tree.members([str(tmp_path)]) == [member.pid]
    assert run_tree.kill_marked("nobody", str(tmp_path / "run"), 5.0, groups=[str(tmp_path), "/nowhere"])
    assert gone(member)
    assert not gone(other)


def test_standing_in_the_folder_counts_for_our_own_since_the_run_began(tmp_path: Path, sleeper: Any) -> None:
    early = sleeper(tmp_path)
    time.sleep(0.05)  # the kernel's ticks are hundredths
    late = sleeper(tmp_path)
    since = run_tree.stat_of(late.pid)
    assert since is not None
    assert sorted(run_tree.marked("nobody", str(tmp_path))) == sorted([early.pid, late.pid])
    assert run_tree.marked("nobody", str(tmp_path), since.started_ticks) == [late.pid]
    if os.geteuid() == 0:
        code = f"import os, time; os.chdir({str(tmp_path)!r}); os.setuid(54_321); os.execve('/bin/sleep', ['sleep', '60'], {{}})"
        with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as foreign:
            while b"sleep" not in Path(f"/proc/{foreign.pid}/cmdline").read_bytes()[:12]:
                time.sleep(0.01)
            assert foreign.pid not in run_tree.marked("nobody", str(tmp_path))
            foreign.kill()


# --- control groups ----------------------------------------------------------------------------------------------------

SPEC = RunSpec(execution_id="e", flow_run_id="r", instance_id="i", image="x", memory_bytes=1 << 30, cpus=0.5, pids=100)


def test_version_2_needs_a_group_that_was_delegated(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    above = root / "system.slice" / "managedd.service"
    (above / "daemon").mkdir(parents=True)
    (root / "cgroup.controllers").write_text("memory pids cpu")
    own = tmp_path / "own"
    # Not in a subgroup: the group that has the daemon in it can't limit those below.
    own.write_text("0::/system.slice/managedd.service\n")
    assert process_cgroup.find("i", root, own) == process_cgroup.Groups()
    # In one, and nobody lets us turn controllers on.
    own.write_text("0::/system.slice/managedd.service/daemon\n")
    assert process_cgroup.find("i", root, own) == process_cgroup.Groups()


def test_what_is_written_into_a_group(tmp_path: Path) -> None:
    (tmp_path / "daemon").mkdir()
    (tmp_path / "daemon" / "memory.swap.max").touch()
    two = process_cgroup.Groups(version=2, parents=dict.fromkeys(("memory", "pids", "cpu"), str(tmp_path)))
    assert two.limits(SPEC) == {
        "memory": {"memory.max": "1073741824", "memory.swap.max": "0"},
        "pids": {"pids.max": "100"},
        "cpu": {"cpu.max": "50000 100000"},
    }
    one = process_cgroup.Groups(version=1, parents={"memory": str(tmp_path), "cpu": str(tmp_path)})
    assert one.limits(SPEC) == {
        "memory": {"memory.limit_in_bytes": "1073741824"},
        "cpu": {"cpu.cfs_quota_us": "50000"},
    }
    assert process_cgroup.Groups().limits(SPEC) == {}


def test_without_control_groups_there_are_none(tmp_path: Path) -> None:
    assert process_cgroup.find("i", tmp_path / "nothing", tmp_path / "nobody") == process_cgroup.Groups()
    (tmp_path / "own").write_text("0::/\n")
    assert process_cgroup.find("i", tmp_path / "nothing", tmp_path / "own") == process_cgroup.Groups()


def test_a_run_whose_end_nobody_wrote_down_ended_with_its_last_sign_of_life(tmp_path: Path) -> None:
    """Its host was off for days: those it did not run."""
    folder = RunFolder(tmp_path, "an-execution")
    (folder.path / "output").mkdir(parents=True)
    began_s = int(time.time()) - 60 * 3600
    files = {
        "spec.json": b"{}",
        "lock": b"",
        "state.json": json.dumps({"started_us": began_s * 1_000_000, "boot_id": "another"}).encode(),
        "output/1": b"a line\n",
        "output/2": b"the last\n",
    }
    for number, (name, content) in enumerate(files.items()):
        (folder.path / name).write_bytes(content)
        os.utime(folder.path / name, (began_s, began_s + 60 * number))
    folder.bury(1.0)
    status = folder.status()
    assert status.started_at_us is not None and status.finished_at_us is not None
    assert status.finished_at_us - status.started_at_us == 240 * 1_000_000
    assert (status.exit_code, status.host_restarted) == (137, True)
