"""The shim as what it is: a process of its own with a child."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.drivers import shim
from managedd.drivers.docker_end import brief_of
from managedd.model.logs import RECORD_MARK, RECORD_MAX_CHARS, ParsedRecord, parse_record

FLOW_RUN = "0d3f3f0e-6f4f-4a53-9c53-1e2f5a1f3a10"
TASK_RUN = "5b6a7c8d-1111-4222-8333-444455556666"


def lines_of(text: str) -> list[str]:
    """`str.splitlines` would break a record at its mark."""
    return text.removesuffix("\n").split("\n")


@dataclass(slots=True)
class Ended:
    code: int
    out: str
    err: str
    report: dict[str, Any]

    @property
    def said(self) -> list[str]:
        """What the shim itself said."""
        return [
            record.message
            for line in lines_of(self.out)
            if (record := parse_record(line)) and record.name == "managedd"
        ]


class Run:
    """A folder like the one inside a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "python").mkdir()
        here = resources.files("managedd.drivers")
        (folder / "shim.py").write_bytes((here / "shim.py").read_bytes())
        (folder / "python" / "managedd_run_log.py").write_bytes((here / "run_log.py").read_bytes())
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        self.options: tuple[str, ...] = ()

    def command(self, *command: str, options: tuple[str, ...] = ()) -> list[str]:
        return [sys.executable, str(self.folder / "shim.py"), *self.options, *options, "--", *command]

    def start(self, *command: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*command, options=options),
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str]) -> Ended:
        out, err = process.communicate(timeout=60)
        report = self.folder / "report.json"
        return Ended(process.returncode, out, err, json.loads(report.read_text()) if report.exists() else {})

    def run(self, *command: str, options: tuple[str, ...] = ()) -> Ended:
        return self.end(self.start(*command, options=options))

    def python(self, code: str) -> Ended:
        return self.run(sys.executable, "-c", code)

    def installer(self, script: str) -> None:
        """A `uv` of ours comes first in the run's search path."""
        tools = self.folder / "bin"
        tools.mkdir()
        (tools / "uv").write_text(f"#!/bin/sh\n{script}\n")
        (tools / "uv").chmod(0o755)
        self.env["PATH"] = f"{tools}:{self.env['PATH']}"

    def require(self, *packages: str) -> None:
        requirements = self.folder / "requirements.txt"
        requirements.write_text("".join(f"{package}\n" for package in packages))
        requirements.chmod(0o600)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.mark.parametrize("name", ["shim", "run_log", "run_git"])
def test_it_needs_no_more_than_it_says(name: str) -> None:
    source = (resources.files("managedd.drivers") / f"{name}.py").read_text()
    imported = {
        line.split()[1].partition(".")[0]
        for line in source.splitlines()
        if line.lstrip().startswith(("import ", "from "))
    }
    assert imported <= sys.stdlib_module_names | {"__future__", "managedd_run_git"}


@pytest.mark.parametrize("code", [0, 1, 77])
def test_the_commands_code_is_its_own(run: Run, code: int) -> None:
    ended = run.python(f"import sys; print('out'); print('err', file=sys.stderr); sys.exit({code})")
    assert (ended.code, ended.out, ended.err) == (code, "out\n", "err\n")
    assert ended.report["phase"] == "exited"
    assert ended.report["exit_code"] == code
    assert ended.report["started_us"] <= ended.report["installed_us"] <= ended.report["exited_us"]
    assert ended.report["max_rss_bytes"] > 1_000_000


def test_a_signal_is_a_code(run: Run) -> None:
    assert run.python("import os; os.kill(os.getpid(), 9)").code == 137


def test_a_command_that_does_not_exist(run: Run) -> None:
    ended = run.run("no-such-command-here")
    assert ended.code == shim.CANNOT_START
    assert ended.said == ["no-such-command-here cannot be started: No such file or directory"]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_command_and_its_children(run: Run, number: signal.Signals) -> None:
    """Each process of the command's group gets the signal, once."""
    code = (
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        f"got = []\nsignal.signal({int(number)}, lambda *_: got.append(1))\n"
        "child = os.fork()\nme = 'child' if child == 0 else 'parent'\nPath(f'{me}.ready').touch()\n"
        "deadline = time.monotonic() + 20\n"
        "while not got and time.monotonic() < deadline: time.sleep(0.01)\n"
        "time.sleep(0.3)\nPath(me).write_text(str(len(got)))\n"
        "if child: os.wait()\nsys.exit(5)"
    )
    os.chdir(run.folder)
    process = run.start(sys.executable, "-c", code)
    wait_for(run.folder / "parent.ready")
    wait_for(run.folder / "child.ready")
    process.send_signal(number)
    assert run.end(process).code == 5
    assert [(run.folder / who).read_text() for who in ("parent", "child")] == ["1", "1"]


def test_a_signal_ends_what_does_not_mind(run: Run) -> None:
    process = run.start(
        sys.executable, "-c", "from pathlib import Path; import time; Path('ready').touch(); time.sleep(60)"
    )
    wait_for(Path("ready").absolute())
    Path("ready").unlink()
    process.send_signal(signal.SIGTERM)
    ended = run.end(process)
    assert (ended.code, ended.report["exit_code"]) == (143, 143)


@pytest.fixture(autouse=True)
def _in_its_folder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.folder)


def test_orphans_are_reaped(run: Run) -> None:
    """A grandchild whose parent is gone becomes the shim's, and is no zombie when it has ended."""
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n        open('orphan', 'w').write(str(os.getpid())); time.sleep(0.2); os._exit(0)\n"
        "    os._exit(0)\n"
        "os.wait(); time.sleep(0.8)\n"
        "print(os.path.exists('/proc/' + open('orphan').read()))"
    )
    assert run.python(code).out == "False\n"


def test_packages_are_installed_first(run: Run) -> None:
    run.installer('echo "args: $*"; cat "$6"; stat -c %a "$6"; printf "10%%\\r100%%\\n"')
    run.require("alpha==1", "beta")
    ended = run.run("echo", "the flow")
    assert ended.code == 0
    assert ended.said[0] == "Installing alpha==1, beta"
    assert ended.said[1] == f"args: pip install --python {sys.executable} --requirement {run.folder}/requirements.txt"
    assert ended.said[2:6] == ["alpha==1", "beta", "600", "100%"]
    assert ended.said[6].startswith("Installed in ")
    assert lines_of(ended.out)[-1] == "the flow"
    assert not (run.folder / "requirements.txt").exists()


def test_credentials_are_masked_wherever_they_turn_up(run: Run) -> None:
    run.installer(
        'cat "$6"; echo "tried s3cr3t-t0ken and p%40ssw0rd and p@ssw0rd"; echo "from $UV_DEFAULT_INDEX"; exit 1'
    )
    run.env["UV_DEFAULT_INDEX"] = "https://someone:index-passw0rd@index.example/simple"
    run.require("git+https://s3cr3t-t0ken@host.example/repo", "x @ https://user:p%40ssw0rd@host.example/x.whl")
    ended = run.run("echo", "the flow")
    whole = ended.out + ended.err + json.dumps(ended.report)
    for secret in ("s3cr3t-t0ken", "p%40ssw0rd", "p@ssw0rd", "index-passw0rd"):
        assert secret not in whole
    assert "git+https://****@host.example/repo" in ended.said[0]
    assert "tried **** and **** and ****" in ended.said


def test_the_daemon_is_told_how_far_the_installation_is(run: Run) -> None:
    run.installer("echo working")
    run.require("alpha==1")
    ended = run.run("echo", "the flow")
    records = [parse_record(line) for line in lines_of(ended.out)]
    assert [record.phase for record in records if record] == ["installing", None, "installed"]
    assert all(record.name == "managedd" for record in records if record)


def test_requirements_do_not_stay_when_the_installer_cannot_be_started(run: Run) -> None:
    run.installer("never")
    (run.folder / "bin" / "uv").write_text("#!/no/such/interpreter\n")
    run.require("git+https://s3cr3t-t0ken@host.example/repo")
    ended = run.run("echo", "the flow")
    assert ended.code == shim.INSTALL_FAILED
    assert "cannot be started" in ended.report["install_error"]
    assert not (run.folder / "requirements.txt").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"HTTP_PROXY": "http://proxy:1"}, "localhost,127.0.0.1,172.18.0.1"),
        (
            {"https_proxy": "http://proxy:1", "NO_PROXY": "internal, more"},
            "internal,more,localhost,127.0.0.1,172.18.0.1",
        ),
        (
            {"all_proxy": "http://proxy:1", "no_proxy": "one", "NO_PROXY": "two"},
            "one,two,localhost,127.0.0.1,172.18.0.1",
        ),
        ({"NO_PROXY": "*", "http_proxy": "http://proxy:1"}, "*,localhost,127.0.0.1,172.18.0.1"),
    ],
)
def test_no_proxy_stands_between_a_run_and_the_api(run: Run, given: dict[str, str], expected: str) -> None:
    run.env |= {"PREFECT_API_URL": "http://172.18.0.1:4201/api", **given}
    show = "import os; print(os.environ['NO_PROXY'], os.environ['no_proxy'], sep='\\n')"
    assert run.python(show).out.splitlines() == [expected, expected]


def test_where_no_proxy_is_named_nothing_is_said_of_proxies(run: Run) -> None:
    run.env |= {"PREFECT_API_URL": "http://172.18.0.1:4201/api", "NO_PROXY": "internal", "HTTP_PROXY": ""}
    assert run.python("import os; print(os.environ['NO_PROXY'], os.environ.get('no_proxy'))").out == "internal None\n"


def test_packages_that_fail_end_the_run(run: Run) -> None:
    run.installer("for n in $(seq 100); do echo line $n; done; echo no such package >&2; exit 3")
    run.require("nothing")
    ended = run.run("echo", "the flow")
    assert ended.code == shim.INSTALL_FAILED
    assert "the flow" not in ended.out
    assert ended.said[-1] == "Installing packages failed"
    assert ended.report["phase"] == "exited"
    assert ended.report["install_error"].splitlines()[-1] == "no such package"
    assert len(ended.report["install_error"].splitlines()) == shim.TAIL_LINES
    assert not (run.folder / "requirements.txt").exists()


def test_an_installation_takes_only_so_long(run: Run) -> None:
    run.installer("echo begun; sleep 60 & sleep 60")
    run.require("slow")
    began = time.monotonic()
    ended = run.run("true", options=("--install-timeout-seconds", "0.5"))
    assert time.monotonic() - began < 20
    assert ended.code == shim.INSTALL_FAILED
    assert ended.report["install_error"] == "not done after 0 s\nbegun"


def test_a_stop_during_the_installation(run: Run) -> None:
    run.installer("touch ready; sleep 60")
    run.require("slow")
    process = run.start("echo", "the flow")
    wait_for(run.folder / "ready")
    process.send_signal(signal.SIGTERM)
    ended = run.end(process)
    assert (ended.code, ended.report["exit_code"]) == (143, 143)
    assert "install_error" not in ended.report
    assert "the flow" not in ended.out


EARLY = """
import signal, sys, threading
sys.path.insert(0, sys.argv.pop(1))
import shim
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
shim.leave(shim.main(sys.argv[1:]))
"""
HEARS = """
import pathlib, signal
print("begun", flush=True)
pathlib.Path("ready").touch()
if signal.sigtimedwait({signal.SIGTERM}, 20) is None:
    print("nobody said a word", flush=True)
"""


def test_a_stop_reaches_an_installer_that_says_nothing_though_no_call_is_interrupted_by_it(run: Run) -> None:
    """As when it comes right before the call that waits; here another thread gets it, so none that waits returns for it."""
    (run.folder / "installer.py").write_text(HEARS)
    run.require("slow")
    command = [sys.executable, "-c", EARLY, str(run.folder), "--installer", str(run.folder / "installer.py"), "true"]
    with subprocess.Popen(
        command, env=run.env, cwd=run.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(run.folder / "ready")
        process.send_signal(signal.SIGTERM)
        ended = run.end(process)
    assert ended.code == 143
    assert ended.said[1:] == ["begun", *ended.said[2:]]
    assert "nobody said a word" not in ended.said


def test_what_an_installer_prints_is_told_line_by_line_however_long_and_however_it_comes(run: Run) -> None:
    long = "x" * (2 * shim.LINE_CHARS + 10)
    run.installer(f"printf 'one\\ntwo'; sleep 0.2; printf ' goes on\\n\\n%s\\n' {long}; printf 'last'")
    run.require("any")
    said = run.run("true").said[1:-1]
    assert said == [
        "one",
        "two goes on",
        *[long[start : start + shim.LINE_CHARS] for start in (0, shim.LINE_CHARS, 2 * shim.LINE_CHARS)],
        "last",
    ]


def test_without_uv_it_is_pip(run: Run) -> None:
    run.env["PATH"] = "/nonexistent"
    run.require("./there-is-no-such-package")
    ended = run.run("/bin/true")
    assert ended.code == shim.INSTALL_FAILED
    assert "there-is-no-such-package" in ended.report["install_error"]


def test_extra_authorities_are_added_to_those_of_the_image(run: Run) -> None:
    (run.folder / "own.pem").write_text("OWN")
    (run.folder / "extra-ca.pem").write_text("EXTRA")
    run.env["SSL_CERT_FILE"] = str(run.folder / "own.pem")
    ended = run.python(
        "import os; print(open(os.environ['SSL_CERT_FILE']).read(), os.environ['GIT_SSL_CAINFO'], os.environ['PIP_CERT'])"
    )
    bundle = run.folder / "ca.pem"
    assert ended.out == f"OWN\nEXTRA {bundle} {bundle}\n"


def test_nothing_of_the_environment_is_left_on_disk(run: Run) -> None:
    run.env["PREFECT_API_KEY"] = "the-runs-own-key"
    assert run.python("import os; print(os.environ['PREFECT_API_KEY'])").out == "the-runs-own-key\n"
    for file in run.folder.rglob("*"):
        if file.is_file():
            assert b"the-runs-own-key" not in file.read_bytes()
            assert stat.S_ISREG(file.stat().st_mode)


# A folder that is shared with other runs, and one of this run's own


def shared_with(run: Run, *folders: Path) -> Run:
    """The same with what is written going to the first of the folders that can be written."""
    run.options = tuple(f"--folder={folder}" for folder in folders)
    return run


def test_what_is_written_goes_to_the_runs_own_folder(run: Run, tmp_path: Path) -> None:
    (run.folder / "extra-ca.pem").write_text("EXTRA")
    own = tmp_path / "var" / "own"
    code = "import os, managedd_run_log; print(os.environ['SSL_CERT_FILE'], managedd_run_log.__file__)"
    ended = shared_with(run, own).run(sys.executable, "-B", "-c", code)
    assert ended.out == f"{own / 'ca.pem'} {own / 'python' / 'managedd_run_log.py'}\n"
    assert json.loads((own / "report.json").read_text())["exit_code"] == 0
    assert {path.name for path in run.folder.iterdir()} == {"shim.py", "python", "extra-ca.pem", "var"}


def test_the_first_folder_that_can_be_written_is_taken(run: Run, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    ended = shared_with(run, in_the_way, in_the_way / "below", tmp_path / "own", tmp_path / "other").run("/bin/true")
    assert ended.code == 0
    assert (tmp_path / "own" / "report.json").exists()
    assert not (tmp_path / "other").exists()


def test_a_run_goes_on_where_no_folder_can_be_written(run: Run, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    (tmp_path / "tmp").mkdir()
    run.env["TMPDIR"] = str(tmp_path / "tmp")
    assert shared_with(run, in_the_way).run("echo", "the flow").out == "the flow\n"
    (made,) = (tmp_path / "tmp").iterdir()
    assert (made / "report.json").exists()


def test_the_report_is_told_by_a_link_too(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shared_with(run, own).run(sys.executable, "-c", "import sys; sys.exit(3)")
    whole = json.loads((own / "report.json").read_text())
    target = (own / "report").readlink()
    assert json.loads(str(target)) == {
        name: whole[name] for name in ("version", "installed_us", "exit_code", "max_rss_bytes")
    }
    found = brief_of({"name": "report", "linkTarget": str(own / target)})
    assert (found.exit_code, found.installed_us, found.peak_memory_bytes) == (
        3, whole["installed_us"], whole["max_rss_bytes"],
    )  # fmt: skip


def test_what_a_link_cannot_hold_is_in_the_report(run: Run, tmp_path: Path) -> None:
    run.installer("echo this is why; exit 1")
    own = tmp_path / "own"
    own.mkdir()
    requirements = own / "requirements.txt"
    requirements.write_text("a\n")
    shared_with(run, own)
    run.options += (f"--requirements={requirements}",)
    assert run.run("echo", "the flow").code == shim.INSTALL_FAILED
    assert json.loads((own / "report").readlink().name)["more"]
    assert brief_of({"linkTarget": str((own / "report").readlink())}) is None
    assert json.loads((own / "report.json").read_text())["install_error"] == "this is why"
    assert not requirements.exists()


def test_requirements_that_are_not_there_are_not_overlooked(run: Run, tmp_path: Path) -> None:
    shared_with(run, tmp_path / "own")
    run.options += (f"--requirements={tmp_path / 'nowhere'}",)
    ended = run.run("echo", "the flow")
    assert ended.code != 0
    assert "the flow" not in ended.out


# What the client does at its start with the settings that the shim has written.
CLIENT = """
import json, logging, logging.config, os, string, sys
settings = open(os.environ["PREFECT_LOGGING_SETTINGS_PATH"]).read()
logging.config.dictConfig(json.loads(string.Template(settings).substitute(PREFECT_LOGGING_LEVEL="INFO")))
run = logging.getLogger("prefect.flow_runs")
"""


def records(ended: Ended) -> list[ParsedRecord]:
    return [record for line in lines_of(ended.err) if (record := parse_record(line))]


def test_records_are_whole(run: Run) -> None:
    ended = run.python(
        CLIENT
        + f"""
run.info("args %s %d", "é", 3, extra={{"flow_run_id": "{FLOW_RUN}", "task_run_id": "{TASK_RUN}"}})
try:
    try: 1 / 0
    except ZeroDivisionError as error: raise ValueError("outer :smile:") from error
except ValueError: run.exception("it failed", extra={{"flow_run_id": "<unknown>"}})
run.info("kept off", extra={{"send_to_api": False}})
run.info("two\\nlines\\r\\x1e")
logging.getLogger("some.library").warning("seen")
logging.getLogger("some.library").info("not seen")
logging.getLogger("prefect.runner").info("seen too")
"""
    )
    assert ended.code == 0, ended.err
    assert len(lines_of(ended.err)) == len(records(ended)) == 5
    first, second, third, fourth, fifth = records(ended)
    assert first == ParsedRecord(
        name="prefect.flow_runs",
        level=logging.INFO,
        message="args é 3",
        timestamp_us=first.timestamp_us,
        flow_run_id=FLOW_RUN,
        task_run_id=TASK_RUN,
    )
    assert abs(first.timestamp_us - time.time_ns() // 1000) < 60_000_000
    assert second.message.startswith("it failed\nTraceback")
    assert "ZeroDivisionError" in second.message
    assert "direct cause" in second.message
    assert second.message.endswith("ValueError: outer :smile:")
    assert (second.level, second.flow_run_id) == (logging.ERROR, None)
    assert third.message == "two\nlines\r\x1e"
    assert (fourth.name, fourth.message) == ("some.library", "seen")
    assert (fifth.name, fifth.message) == ("prefect.runner", "seen too")


def test_a_flow_that_arranges_its_own_logging_keeps_its_records(run: Run) -> None:
    ended = run.python(CLIENT + "logging.basicConfig(force=True, format='mine %(message)s')\nrun.warning('still here')")
    assert [record.message for record in records(ended)] == ["still here"]
    assert "mine still here" in ended.err


def test_a_huge_message_is_cut(run: Run) -> None:
    ended = run.python(CLIENT + "run.info('漢' * 2_000_000)")
    (record,) = records(ended)
    assert record.message.endswith("... [truncated]")
    assert 100_000 < len(record.message) < RECORD_MAX_CHARS


def test_processes_do_not_tear_each_others_records(run: Run) -> None:
    code = (
        CLIENT
        + "import os\nfor n in range(4):\n if os.fork() == 0:\n  for m in range(50): run.info('%d %d ' + 'x' * 20000, n, m)\n  os._exit(0)\nfor n in range(4): os.wait()"
    )
    ended = run.python(code)
    found = [record.message.rstrip("x").split() for record in records(ended)]
    assert len(lines_of(ended.err)) == 200
    assert sorted(found) == sorted([str(n), str(m)] for n in range(4) for m in range(50))


def until_the_pipe_is_full(process: subprocess.Popen[str]) -> None:
    """Pages that are not filled count as well."""
    assert process.stderr is not None
    nearly_full = fcntl.fcntl(process.stderr, fcntl.F_GETPIPE_SZ) * 3 // 4
    deadline = time.monotonic() + 30
    while int.from_bytes(fcntl.ioctl(process.stderr, termios.FIONREAD, bytes(4)), sys.byteorder) < nearly_full:
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail("the pipe was not filled")
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a pipe is asked as Linux tells it")
def test_a_signal_while_the_pipe_is_full_tears_no_record(run: Run) -> None:
    process = run.start(
        sys.executable,
        "-c",
        CLIENT
        + "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('heard'))\n"
        + "for n in range(3): run.info('%d' + 'z' * 300_000, n)",
    )
    until_the_pipe_is_full(process)
    process.send_signal(signal.SIGUSR1)
    assert process.stdout is not None
    assert process.stdout.readline() == "heard\n"
    assert [record.message.rstrip("z") for record in records(run.end(process))] == ["0", "1", "2"]


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a pipe is asked as Linux tells it")
def test_a_pipe_that_keeps_nobody_waiting_gets_whole_records(run: Run) -> None:
    process = run.start(
        sys.executable,
        "-c",
        CLIENT
        + "os.set_blocking(2, False)\nfor n in range(3): print('a line', file=sys.stderr); run.info('%d' + 'z' * 300_000, n)",
    )
    until_the_pipe_is_full(process)
    assert [record.message.rstrip("z") for record in records(run.end(process))] == ["0", "1", "2"]


def test_a_stream_of_no_file_gets_records_too(run: Run) -> None:
    ended = run.python(
        CLIENT
        + "import io\nsink = io.StringIO()\nlogging.getLogger().handlers[0].setStream(sink)\nlogging.warning('caught')\n"
        + "sink.seek(0); print(json.loads(sink.read()[1:])['message'])"
    )
    assert ended.out == "caught\n"


def test_users_own_settings_stay(run: Run) -> None:
    run.env["PREFECT_LOGGING_SETTINGS_PATH"] = "/home/me/logging.yml"
    show = "import os; print(os.environ['PREFECT_LOGGING_SETTINGS_PATH'], os.environ.get('PREFECT_LOGGING_TO_API_ENABLED'), os.environ.get('PYTHONPATH'))"
    assert run.python(show).out == "/home/me/logging.yml None None\n"


def test_the_way_to_the_api_is_off_unless_the_user_wants_it(run: Run) -> None:
    show = "import os; print(os.environ['PREFECT_LOGGING_TO_API_ENABLED'])"
    assert run.python(show).out == "false\n"
    run.env["PREFECT_LOGGING_TO_API_ENABLED"] = "true"
    assert run.python(show).out == "true\n"
    settings = json.loads((run.folder / "logging.json").read_text())
    assert settings["loggers"]["prefect.flow_runs"]["handlers"] == ["api"]
    assert settings["handlers"]["console"]["skip"] == ["prefect.flow_runs", "prefect.task_runs", "prefect.extra"]


def test_the_users_python_path_stays_behind_ours(run: Run) -> None:
    run.env["PYTHONPATH"] = "/somewhere"
    assert run.python("import os; print(os.environ['PYTHONPATH'])").out == f"{run.folder}/python:/somewhere\n"


@given(st.text(max_size=200))
def test_parse_record_survives_anything(text: str) -> None:
    assert parse_record(text) is None
    assert parse_record(RECORD_MARK + text) is None


GOOD = {"name": "n", "level": 20, "message": "m", "created_us": 1, "flow_run_id": None, "task_run_id": None}


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "n" * 2000},
        {"name": None},
        {"level": "20"},
        {"level": True},
        {"level": -1},
        {"level": 1e3},
        {"message": ["m"]},
        {"created_us": -1},
        {"created_us": 10**18},
        {"created_us": 1.5},
        {"flow_run_id": "not-a-uuid"},
        {"flow_run_id": 5},
        {"task_run_id": FLOW_RUN.replace("-", "")},
        {"extra": 1},
        {"phase": None},
        {"phase": 1},
        {"phase": "finished"},
        {"phase": ["installed"]},
    ],
)
def test_what_is_no_record(change: dict[str, Any]) -> None:
    assert parse_record(RECORD_MARK + json.dumps(GOOD)) is not None
    assert parse_record(RECORD_MARK + json.dumps({**GOOD, **change})) is None


def test_records_are_bounded_and_fit_to_be_stored() -> None:
    assert parse_record(RECORD_MARK + json.dumps({**GOOD, "message": "m" * RECORD_MAX_CHARS})) is None
    told = parse_record(RECORD_MARK + json.dumps({**GOOD, "phase": "installed"}))
    assert told is not None
    assert told.phase == "installed"
    assert parse_record(RECORD_MARK + "[" * 100_000) is None
    record = parse_record(
        RECORD_MARK + json.dumps({**GOOD, "message": "\ud800 \U0001f600", "flow_run_id": FLOW_RUN.upper()})
    )
    assert record is not None
    assert record.message.encode() == "\ufffd \U0001f600".encode()
    assert record.flow_run_id == FLOW_RUN
