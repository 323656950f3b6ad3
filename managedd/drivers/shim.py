"""What a run starts as: installs its packages, prepares its logging, starts the engine and stays its parent to the end.

This file is placed inside the run and executed by the run's own Python (3.9 or newer), so it uses the standard library alone and
imports nothing of managedd. What it writes goes to a folder of the run's own: that of this file may be shared with other runs, and
read-only. The driver reads `report.json`, or the link beside it, afterwards; whatever runs beside us may have forged them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import select
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from types import FrameType

INSTALL_FAILED = 210
"""The exit code when packages could not be installed; the report says why."""
CANNOT_START = 127
"""The exit code when the command does not exist, as a shell has it."""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
TAIL_LINES = 20
ERROR_CHARS = 4000
LINE_CHARS = 8000
PR_SET_CHILD_SUBREAPER = 36
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "socks_proxy")
SHEBANG_BYTES = 120
LINKED = ("version", "installed_us", "exit_code", "max_rss_bytes", "peak_memory_bytes", "oom_kills")
"""What the link tells of the report; `more` in it says that the file has something else to tell."""
GIT_PROGRAM = """\
import sys
sys.path.append({directory!r})
import managedd_run_git
sys.exit(managedd_run_git.main(sys.argv[1:]))
"""
CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE")
CA_PLACES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
INDEX_VARIABLES = (
    "UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy",
)  # fmt: skip
HIDDEN = "****"
URL_END = re.compile(r"[\s'\"<>`]")
VERSION_CONTROL = re.compile(r"(?:git|hg|svn|bzr)\+[a-z]{2,6}$")
URL_PATH = re.compile(r"[/?#]")
QUERY = re.compile(r"\?[^#]+")
GIT_URL = re.compile(r"(?<=git\+)https?://[^\s;]+")


class Report:
    """`report.json`, replaced as a whole at every phase: a reader sees the last phase that was reached, never half of one.

    With `linked`, its numbers are the target of the link `report` beside it too: some engines tell where a link leads in a tenth of the
    time in which they hand out a file.
    """

    def __init__(self, path: Path, *, linked: bool = False) -> None:
        self._path = path
        self._linked = linked
        self._fields: dict[str, Any] = {"version": 1}

    def write(self, **fields: Any) -> None:
        """The report on disk has these fields too; a full disk is not worth the run."""
        self._fields.update(fields)
        new = self._path.with_name(self._path.name + ".new")
        with contextlib.suppress(OSError):
            new.write_text(json.dumps(self._fields))
            new.replace(self._path)
            if self._linked:
                self._link(self._path.with_suffix(""))

    def _link(self, link: Path) -> None:
        brief = {name: self._fields[name] for name in LINKED if self._fields.get(name) is not None}
        if "install_error" in self._fields:
            brief["more"] = 1
        new = link.with_name(link.name + ".new")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        # No slash in it: it leads nowhere, and is one name, which the system bounds.
        new.symlink_to(json.dumps(brief, separators=(",", ":")))
        new.replace(link)


def now_us() -> int:
    return time.time_ns() // 1000


def say(message: str, level: int = 20, phase: str | None = None) -> None:
    """One line of our own is in the run's log; `phase` tells the daemon what has been reached."""
    record = {
        "name": "managedd", "level": level, "message": message[:LINE_CHARS], "created_us": now_us(), "flow_run_id": None, "task_run_id": None,
    }  # fmt: skip
    if phase is not None:
        record["phase"] = phase
    line = memoryview(b"\x1e" + json.dumps(record).encode() + b"\n")
    with contextlib.suppress(OSError):
        while line:
            # A signal while the pipe is full ends the call half-way.
            line = line[os.write(1, line) :]


class Mask:
    """Replaces what must not be printed: the credentials of every URL, and those of the given texts wherever they turn up."""

    def __init__(self, texts: list[str]) -> None:
        found: set[str] = set()
        for text in texts:
            for credential in hidden_parts(text):
                for part in (credential, *credential.split(":", 1)):
                    found.update((part, unquote(part)))
        # Short ones are user names like "git" and would blot out half of every line.
        self._secrets = sorted((secret for secret in found if len(secret) > 5), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return mask_urls(text)


def mask_urls(text: str) -> str:
    """The text with the user names, passwords and queries of its URLs hidden; the same as `model/urls.py` has it."""
    return _without(text, [])


def hidden_parts(text: str) -> list[str]:
    """What `mask_urls` hides in the text."""
    hidden: list[str] = []
    _without(text, hidden)
    return hidden


def _without(text: str, hidden: list[str]) -> str:
    before, *rest = text.split("://")
    shown = [before]
    for body in rest:
        address = URL_END.split(body, maxsplit=1)[0]
        rest_of_body = body[len(address) :]
        authority = URL_PATH.split(address, maxsplit=1)[0]
        _, colon, port = authority.rpartition(":")
        is_password = "@" not in authority and not authority.endswith("]") and bool(colon) and not port.isdecimal()
        within = authority if VERSION_CONTROL.search(before[-12:]) and not is_password else address
        end = within.rfind("@")
        if end >= 0:
            hidden.append(address[:end])
            address = HIDDEN + address[end:]
        for query in QUERY.findall(address):
            hidden.extend(value for part in query[1:].split("&") for value in (part, part.partition("=")[2]))
        shown.append(QUERY.sub("?" + HIDDEN, address) + rest_of_body)
        before = body
    return "://".join(shown)


class Child:
    """The process that runs now, in a session of its own, and the signals that are passed on to all of its group.

    A session of its own, because an init with `-g` in the image signals our group: through us the engine gets each signal once.
    """

    def __init__(self) -> None:
        self._pid: int | None = None
        self.signalled: int | None = None
        self._woken, wake = os.pipe()
        for end in (self._woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in FORWARDED:
            signal.signal(number, self._forward)

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """The command runs; a signal that came while it was being started reaches it too."""
        process = subprocess.Popen(command, start_new_session=True, **options)  # noqa: S603 (the run's own command)
        self._pid = process.pid
        if self.signalled is not None:
            self.kill(self.signalled)
        return process

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """How the process ended, as `Popen.wait` has it; every orphan that comes to us until then is reaped too."""
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return process.returncode
            if ended == 0:
                self._woken_by()

    def read(self, source: int, size: int) -> bytes:
        """So many bytes at most of what the process writes there; none when there will be no more."""
        while not self._woken_by(source):
            pass
        return os.read(source, size)

    def _woken_by(self, *sources: int) -> bool:
        """Whether there is something to read; False: a signal has come.

        Whatever else could be waited for: a signal that comes right before such a call would be passed on when that returns.
        """
        ready, _, _ = select.select([self._woken, *sources], [], [])
        if self._woken in ready:
            os.read(self._woken, 4096)
        return any(source in ready for source in sources)

    def ended(self) -> None:
        self._pid = None

    def kill(self, number: int) -> None:
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, number)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if number in {signal.SIGTERM, signal.SIGINT}:
            self.signalled = number
        self.kill(number)


def install(requirements: Path, timeout_seconds: float, child: Child, installer: Path | None = None) -> str | None:
    """The requirements are installed; the returned text says why not. Their file is gone either way."""
    try:
        return _install(requirements, timeout_seconds, child, installer)
    finally:
        requirements.unlink()


def _install(requirements: Path, timeout_seconds: float, child: Child, installer: Path | None) -> str | None:
    wanted = requirements.read_text()
    mask = Mask([wanted, *(os.environ.get(name, "") for name in INDEX_VARIABLES)])
    if installer is not None:
        command = [sys.executable, "-IS", str(installer), str(requirements)]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--python", sys.executable, "--requirement", str(requirements)]
    else:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--requirement",
            str(requirements),
        ]
    # The run's file system is thrown away with it: the distribution's own packages need no protection, and a cache is for nobody.
    environment = {
        "UV_BREAK_SYSTEM_PACKAGES": "1", "PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_NO_INPUT": "1",
        "PIP_PROGRESS_BAR": "off", "UV_NO_PROGRESS": "1", "NO_COLOR": "1", "GIT_TERMINAL_PROMPT": "0", "PYTHONUNBUFFERED": "1", "UV_NO_CACHE": "1", "PIP_NO_CACHE_DIR": "1",
        **os.environ,
    }  # fmt: skip
    names = [mask(line.strip()) for line in wanted.splitlines() if line.strip()]
    say(f"Installing {', '.join(names)}", phase="installing")
    requirements.write_text(GIT_URL.sub(kept_by_git, wanted))
    began = time.monotonic()
    tail: list[str] = []
    timed_out = threading.Event()
    try:
        process = child.start(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            bufsize=0,
        )
    except OSError as error:
        return f"{command[0]} cannot be started: {error}"

    def give_up() -> None:
        timed_out.set()
        child.kill(signal.SIGKILL)

    alarm = threading.Timer(timeout_seconds, give_up)
    alarm.daemon = True
    alarm.start()
    try:
        for line in _lines(process, child):
            said = mask(line)
            say(said)
            tail = [*tail[1 - TAIL_LINES :], said]
        code = child.wait(process)
    finally:
        alarm.cancel()
        child.ended()
    seconds = time.monotonic() - began
    if timed_out.is_set():
        return f"not done after {timeout_seconds:.0f} s\n" + "\n".join(tail)
    if code != 0:
        return "\n".join(tail)[-ERROR_CHARS:] or f"the installer ended with exit code {code}"
    say(f"Installed in {seconds:.1f} s", phase="installed")
    return None


def _lines(process: subprocess.Popen[bytes], child: Child) -> Any:
    """What the process prints, line by line, each bounded."""
    assert process.stdout is not None
    rest = b""
    with process.stdout as output:
        while chunk := child.read(output.fileno(), LINE_CHARS):
            *lines, rest = (rest + chunk).split(b"\n")
            while len(rest) >= LINE_CHARS:
                lines, rest = [*lines, rest[:LINE_CHARS]], rest[LINE_CHARS:]
            yield from _texts(lines)
    yield from _texts([rest])


def _texts(lines: list[bytes]) -> Any:
    """The lines as a terminal would show them, without the empty ones."""
    for line in lines:
        for start in range(0, len(line), LINE_CHARS):
            if text := line[start : start + LINE_CHARS].decode(errors="replace").rstrip().rpartition("\r")[2]:
                yield text


def kept_by_git(url: re.Match[str]) -> str:
    """The URL without its credentials where git was prepared to get them from us: an installer hands it to git as an argument."""
    run_git = sys.modules.get("managedd_run_git")
    found = run_git.URL.fullmatch(url[0]) if run_git is not None else None
    if run_git is None or found is None:
        return url[0]
    with contextlib.suppress(OSError):
        return str(run_git.keep(found))
    return url[0]


def own_folder(shared: Path, candidates: list[Path]) -> Path:
    """Where this run can write: the first of the candidates, one of no fixed name when there is none; `shared` when none was asked for.

    Our modules are found in it under `python`, so that they take it for their place.
    """
    if not candidates:
        return shared
    folder = next(filter(_can_be_written, candidates), None) or Path(tempfile.mkdtemp(prefix="managedd-"))
    with contextlib.suppress(FileExistsError):
        (folder / "python").symlink_to(shared / "python")
    return folder


def _can_be_written(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK | os.X_OK)
    return False


def prepare_git(directory: Path) -> None:
    """The `git` that the run finds keeps credentials out of the process list; nothing is changed where there is no git."""
    first_line = f"#!{sys.executable} -IS"
    if shutil.which("git") is None or " " in sys.executable or len(first_line) > SHEBANG_BYTES:
        return
    own = directory / "bin" / "git"
    with contextlib.suppress(OSError, ImportError):
        sys.path.append(str(directory / "python"))
        import managedd_run_git  # type: ignore[import-not-found]  # noqa: F401, PLC0415 (lies beside us only inside a run)

        (directory / "git").mkdir(mode=0o700, exist_ok=True)
        own.parent.mkdir(exist_ok=True)
        own.write_text(f"{first_line}\n{GIT_PROGRAM.format(directory=str(directory / 'python'))}")
        own.chmod(0o755)
        os.environ["PATH"] = os.pathsep.join((str(own.parent), os.environ.get("PATH", os.defpath)))


def keep_off_proxies() -> None:
    """The way to the daemon and to the run itself leads through no proxy, whoever named one: the operator, the user or the image."""
    if not any(os.environ.get(name) for lower in PROXIES for name in (lower, lower.upper())):
        return
    hosts = [urlsplit(os.environ.get(name, "")).hostname for name in ("PREFECT_API_URL", "PREFECT_CLOUD_API_URL")]
    given = [host.strip() for name in ("no_proxy", "NO_PROXY") for host in os.environ.get(name, "").split(",")]
    direct = ",".join(dict.fromkeys(host for host in (*given, "localhost", "127.0.0.1", *hosts) if host))
    os.environ.update(no_proxy=direct, NO_PROXY=direct)


def trust(shared: Path, directory: Path) -> dict[str, str]:
    """The environment that makes the operator's extra authorities trusted beside those of the image; empty without any."""
    extra = shared / "extra-ca.pem"
    if not extra.exists():
        return {}
    places = [os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *CA_PLACES]
    own = next((Path(place) for place in places if place and Path(place).is_file()), None)
    bundle = directory / "ca.pem"
    bundle.write_bytes((own.read_bytes() if own else b"") + b"\n" + extra.read_bytes())
    return dict.fromkeys(CA_VARIABLES, str(bundle))


def logging_environment(directory: Path) -> dict[str, str]:
    """The environment under which the client writes its records to our output, each as one line; empty where the user has own settings."""
    if os.environ.get("PREFECT_LOGGING_SETTINGS_PATH"):
        return {}
    to_api = os.environ.get("PREFECT_LOGGING_TO_API_ENABLED", "").lower() in {"1", "true", "yes", "on", "t", "y"}
    settings = directory / "logging.json"
    settings.write_text(json.dumps(logging_settings(to_api=to_api), indent=1))
    path = os.pathsep.join(filter(None, (str(directory / "python"), os.environ.get("PYTHONPATH"))))
    return {
        "PREFECT_LOGGING_SETTINGS_PATH": str(settings),
        "PYTHONPATH": path,
        "PREFECT_LOGGING_TO_API_ENABLED": "true" if to_api else "false",
    }


def logging_settings(*, to_api: bool) -> dict[str, Any]:
    """The client's own arrangement of loggers, so that its environment overrides work, with our handler in the console's place.

    Our handler is also on the run loggers themselves, for flows that replace the root's; it writes each record once. With `to_api` the
    run loggers' records take the client's own way instead, and our handler leaves them alone.
    """
    level = "${PREFECT_LOGGING_LEVEL}"
    run = ["api"] if to_api else ["console"]
    handlers: dict[str, Any] = {
        "console": {
            "level": 0, "class": "managedd_run_log.RunLogHandler", "stream": "ext://sys.stderr", "skip": run_loggers() if to_api else [],
        },
    }  # fmt: skip
    if to_api:
        handlers["api"] = {"level": 0, "class": "prefect.logging.handlers.APILogHandler"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": handlers,
        "loggers": {
            "prefect": {"level": level},
            "prefect.extra": {"level": level, "handlers": run, "propagate": False},
            "prefect.flow_runs": {"level": "NOTSET", "handlers": run},
            "prefect.task_runs": {"level": "NOTSET", "handlers": run},
            "prefect.server": {"level": "WARNING"},
            "prefect.client": {"level": level},
            "prefect.infrastructure": {"level": level},
            "prefect._internal": {"level": "ERROR", "propagate": False, "handlers": ["console"]},
            "uvicorn": {"level": "WARNING", "handlers": ["console"], "propagate": False},
            "fastapi": {"level": "WARNING", "handlers": ["console"], "propagate": False},
        },
        "root": {"level": "WARNING", "handlers": ["console"]},
    }


def run_loggers() -> list[str]:
    return ["prefect.flow_runs", "prefect.task_runs", "prefect.extra"]


def measures(cgroup: Path | None) -> dict[str, int | None]:
    """The peak of all that ran under us, by our own account and by the control group's, and how often it ran out of memory."""
    unit = 1 if sys.platform == "darwin" else 1024
    found: dict[str, int | None] = {
        "max_rss_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit,
        "peak_memory_bytes": None,
        "oom_kills": None,
    }
    if cgroup is not None:
        for peak in (cgroup / "memory.peak", cgroup / "memory" / "memory.max_usage_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                found["peak_memory_bytes"] = int(peak.read_text())
        for events in (cgroup / "memory.events", cgroup / "memory" / "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                found["oom_kills"] = int(dict(line.split() for line in events.read_text().splitlines())["oom_kill"])
    return found


def become_subreaper() -> None:
    """Orphans of the run become our children where the kernel allows it, so that their memory is counted."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes  # noqa: PLC0415 (some builds of Python lack it)

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main(arguments: list[str]) -> int:
    """The returned code is the command's own, 128 + n for a signal, or one of ours."""
    parser = argparse.ArgumentParser(prog="managedd-shim")
    parser.add_argument("--install-timeout-seconds", type=float, default=600.0)
    parser.add_argument(
        "--installer", type=Path, default=None, help="a program that installs the requirements in its argument"
    )
    parser.add_argument("--cgroup", type=Path, default=None, help="where this run's own control group is mounted")
    parser.add_argument(
        "--folder",
        type=Path,
        action="append",
        default=[],
        help="where to write; of several, the first that can be written",
    )
    parser.add_argument("--requirements", type=Path, default=None, help="what to install")
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args(arguments)
    shared = Path(__file__).resolve().parent
    directory = own_folder(shared, chosen.folder)
    report = Report(directory / "report.json", linked=bool(chosen.folder))
    report.write(phase="started", started_us=now_us())
    become_subreaper()
    child = Child()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")  # what a killed process has printed shall be there
    os.environ.update(trust(shared, directory))
    keep_off_proxies()
    prepare_git(directory)
    requirements = chosen.requirements or directory / "requirements.txt"
    if chosen.requirements is not None or requirements.exists():
        report.write(phase="installing")
        error = install(requirements, chosen.install_timeout_seconds, child, chosen.installer)
        if child.signalled is not None:
            report.write(phase="exited", exited_us=now_us(), exit_code=128 + child.signalled, **measures(chosen.cgroup))
            return 128 + child.signalled
        if error is not None:
            say("Installing packages failed", level=40)
            report.write(
                phase="exited",
                install_error=error[-ERROR_CHARS:],
                exited_us=now_us(),
                exit_code=INSTALL_FAILED,
                **measures(chosen.cgroup),
            )
            return INSTALL_FAILED
    os.environ.update(logging_environment(directory))
    report.write(phase="running", installed_us=now_us())
    try:
        process = child.start(chosen.command)
    except OSError as error:
        say(f"{chosen.command[0]} cannot be started: {error.strerror}", level=40)
        report.write(phase="exited", exited_us=now_us(), exit_code=CANNOT_START, **measures(chosen.cgroup))
        return CANNOT_START
    ended = child.wait(process)
    child.ended()
    code = ended if ended >= 0 else 128 - ended
    report.write(phase="exited", exited_us=now_us(), exit_code=code, **measures(chosen.cgroup))
    return code


def leave(code: int) -> NoReturn:
    """The process ends with the code at once: nothing of ours is left to be flushed."""
    os._exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
