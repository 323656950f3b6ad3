"""The shared Python environments of runs on this host: one per Python and Prefect version, made by uv when a run first needs it.

What an image is to a container: the names of Prefect's own images say which Python and which Prefect are wanted. The environments with
further packages are made from these inside the runs (`run_environment.py`), and go here when nobody uses them any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import structlog
from anyio.streams.text import TextReceiveStream

from managedd.drivers import folder_tree, run_environment
from managedd.drivers.shim import CA_PLACES
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import ImageError, PullPolicy
from managedd.model.urls import mask_urls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from managedd.model.drivers import Progress

ALLOWED: Final = (
    "runs without a container engine take no images, only the names of Prefect's own, which say what to install: "
    "'prefecthq/prefect:3-latest', 'prefecthq/prefect:3.8-python3.12', 'prefecthq/prefect:3.8.8-python3.11' and the like"
)
PYTHON: Final = ">=3.10"
"""What Prefect 3 needs."""
PYTHON_TO_DOWNLOAD: Final = "3.12"
"""Where the host has none."""
LOOK_SECONDS: Final = 0.1
TAIL_LINES: Final = 20
HALF_MADE_SECONDS: Final = 86_400.0
UNPACK_BYTES: Final = 1024 * 1024
PRUNE_SECONDS: Final = 60.0
PRUNE_WAIT_SECONDS: Final = "5"
_IMAGE = re.compile(
    r"(?:(?:index\.)?docker\.io/)?prefecthq/prefect(?::(?:latest|(?P<version>3(?:\.\d+){0,2})(?:-latest)?)(?:-python(?P<python>3\.\d+))?)?",
    re.ASCII,
)
_GIVEN = re.compile(
    r"UV_(?:INDEX\w*|DEFAULT_INDEX|EXTRA_INDEX_URL|FIND_LINKS|KEYRING_PROVIDER|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST|HTTP_TIMEOUT|OFFLINE|CACHE_DIR|"
    r"CONFIG_FILE|PYTHON_INSTALL_MIRROR|EXCLUDE_NEWER|CONSTRAINT)|SSL_CERT_(?:FILE|DIR)|NETRC|(?:https?|all|no)_proxy|(?:HTTPS?|ALL|NO)_PROXY"
)
"""What of the daemon's own environment says how this host reaches a package index: for installers alone, never for flows."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the name of an image asks for."""

    prefect: str
    """A requirement."""
    python: str | None
    """`3.12`, or None: the usual one."""


def wanted_by(image: str) -> Wanted:
    """What to install for that image. Raises ImageError for any image but Prefect's own."""
    found = _IMAGE.fullmatch(image)
    if found is None:
        raise ImageError(f"it is not on this host: {ALLOWED}")
    version = found["version"] or "3"
    exact = {0: "prefect>=3,<4", 1: f"prefect=={version}.*", 2: f"prefect=={version}"}
    return Wanted(exact[version.count(".")], found["python"])


def uv_program() -> str:
    """The path of the installer. Raises ManagedError(DRIVER) where there is none."""
    packed = Path(getattr(sys, "_MEIPASS", "/nowhere")) / "uv.xz"
    if packed.is_file():
        return str(_unpacked(packed))
    with contextlib.suppress(ImportError, FileNotFoundError):
        import uv  # noqa: PLC0415 (only who runs without containers needs it)

        return str(uv.find_uv_bin())
    found = shutil.which("uv")
    if found is None:
        raise ManagedError(
            ErrorCode.DRIVER,
            "uv, which makes the environments of runs without a container engine, is not installed: put it into the PATH",
        )
    return found


def _unpacked(packed: Path) -> Path:
    """The program that lies compressed beside the modules of a frozen executable, and goes with them. Raises ManagedError(DRIVER)."""
    program = packed.with_suffix("")
    if not program.exists():
        try:
            with (
                lzma.open(packed) as source,
                tempfile.NamedTemporaryFile(dir=packed.parent, prefix="uv-", delete=False) as target,
            ):
                shutil.copyfileobj(source, target, UNPACK_BYTES)
            new = Path(target.name)
            new.chmod(0o700)
            # Another thread may have been as far.
            new.replace(program)
        except (OSError, lzma.LZMAError) as error:
            raise ManagedError(ErrorCode.DRIVER, f"uv could not be unpacked in {packed.parent}: {error}") from error
    return program


def _readable(path: Path) -> bool:
    """Whether there is a file that we may read. A service's home may be hidden from it, or be another user's."""
    try:
        return path.is_file() and os.access(path, os.R_OK)
    except OSError:
        return False


class Environments:
    """The environments in one folder. Several daemons may share it."""

    def __init__(
        self, folder: Path, *, uv: str, python: str | None, settings: Mapping[str, str], ca_bundle: bytes | None = None
    ) -> None:
        self.folder = folder
        self._uv = uv
        self._python = python
        self._settings = dict(settings)
        """Variables for uv from the daemon's settings: index, proxies."""
        self._ca_bundle = ca_bundle
        self._lock = -1
        """While an environment is being made: held by whoever makes it."""

    def open(self) -> str:
        """The folder is there; the returned text is uv's version. Raises ManagedError(DRIVER)."""
        try:
            for place in (self.folder, self.folder / "tags"):
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
            said = subprocess.run([self._uv, "--version"], capture_output=True, text=True, check=True, timeout=30)  # noqa: S603
        except (OSError, subprocess.SubprocessError) as error:
            raise ManagedError(ErrorCode.DRIVER, f"The environments of runs can't be made: {error}") from error
        if self._ca_bundle is not None:
            own = next((Path(place) for place in CA_PLACES if _readable(Path(place))), None)
            (self.folder / "ca.pem").write_bytes((own.read_bytes() if own else b"") + b"\n" + self._ca_bundle)
        return said.stdout.split()[1]

    def installer_environment(self) -> dict[str, str]:
        """The variables under which packages are installed, here and in runs. May hold secrets."""
        found = {name: value for name, value in os.environ.items() if _GIVEN.fullmatch(name)}
        home = self._home()
        for name, path in (("UV_CONFIG_FILE", home / ".config" / "uv" / "uv.toml"), ("NETRC", home / ".netrc")):
            if _readable(path):
                found.setdefault(name, str(path))
        found.setdefault("UV_CACHE_DIR", str(self.folder / "cache"))
        if self._ca_bundle is not None:
            found["SSL_CERT_FILE"] = str(self.folder / "ca.pem")
        return {**found, "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never", **self._settings}

    def _home(self) -> Path:
        """The daemon's home; our own folder for a user who has none."""
        try:
            return Path.home()
        except RuntimeError:
            return self.folder

    def find(self, image: str) -> Path | None:
        """The environment for that image, when it is there."""
        try:
            name = self._tag(wanted_by(image)).read_text().strip()
        except FileNotFoundError:
            return None
        found = self.folder / name
        return found if name and run_environment.facts_of(str(found)) is not None else None

    async def prepare(self, image: str, policy: PullPolicy, progress: Progress) -> None:
        """The environment is there; who makes it is waited for. Raises ImageError."""
        wanted = wanted_by(image)
        if policy is not PullPolicy.ALWAYS and self._touched(image):
            return
        if policy is PullPolicy.NEVER:
            raise ImageError("its environment is not on this host, and the pull policy is Never")
        async with self._alone(progress) as waited:
            if (waited or policy is not PullPolicy.ALWAYS) and self._touched(image):
                return
            began = time.monotonic()
            name = await self._make(wanted, progress)
            tag = self._tag(wanted)
            new = tag.with_name(f"{tag.name}.new")
            new.write_text(f"{name}\n")
            new.replace(tag)
            await progress(f"The environment for {image} is ready after {time.monotonic() - began:.1f} s ({name})")

    def _touched(self, image: str) -> bool:
        """Whether it is there; then nobody takes it for unused now."""
        found = self.find(image)
        if found is not None:
            with contextlib.suppress(FileNotFoundError):
                os.utime(found / run_environment.COMPLETE)
                return True
        return False

    @contextlib.asynccontextmanager
    async def _alone(self, progress: Progress) -> AsyncIterator[bool]:
        """Nobody else on this host makes environments here; whether somebody had to be waited for."""
        waited = False
        with contextlib.ExitStack() as held:
            while True:
                try:
                    self._lock = held.enter_context(
                        run_environment.locked(str(self.folder / "prefect.lock"), wait=False)
                    )
                    break
                except BlockingIOError:
                    if not waited:
                        await progress("Waiting for an environment that another run makes")
                    waited = True
                    await anyio.sleep(LOOK_SECONDS)
            yield waited

    async def _make(self, wanted: Wanted, progress: Progress) -> str:
        await progress(f"Making a Python environment with {wanted.prefect}")
        python = await self._interpreter(wanted.python, progress)
        compile_ = ("pip", "compile", "-", "--no-header", "--no-annotate", "--quiet", "--python", python)
        # With all that it depends on: the newest of several may be one that can't be installed.
        resolved = await self._run(*compile_, input_text=f"{wanted.prefect}\n")
        exact = next((line.strip() for line in resolved if line.startswith("prefect==")), None)
        if exact is None:
            raise ImageError(f"{wanted.prefect} could not be found: {' '.join(resolved)}")
        version = exact.partition("==")[2]
        python_version = (await self._ask_python(python)) or "3"
        place = hashlib.sha256(python.encode()).hexdigest()[:6]
        name = f"prefect-{version}-python-{python_version}-{place}"
        made = self.folder / name
        if run_environment.facts_of(str(made)) is not None:
            return name
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(made, ignore_errors=True))
        await self._run("venv", "--quiet", "--relocatable", "--no-project", "--python", python, str(made))
        own = run_environment.python_of(str(made))
        await self._run("pip", "install", "--python", own, "--compile-bytecode", exact, "pip", "uv", progress=progress)
        key = f"{name}-{time.time_ns()}"
        facts = {"key": key, "prefect": version, "python": python_version, "interpreter": python}
        await anyio.to_thread.run_sync(run_environment.complete, str(made), facts)
        return name

    async def _interpreter(self, version: str | None, progress: Progress) -> str:
        """The path of a Python; one is downloaded only where the host has none that fits."""
        request = version or self._python or PYTHON
        try:
            return (await self._run("python", "find", "--system", request))[-1].strip()
        except (ImageError, IndexError):
            if version is None and self._python is not None:
                raise ImageError(f"process.python = {self._python!r} is no Python that could be found") from None
        wanted = version or PYTHON_TO_DOWNLOAD
        await progress(f"This host has no Python {request}: downloading {wanted}")
        await self._run("python", "install", wanted, progress=progress, downloads=True)
        return (await self._run("python", "find", "--managed-python", wanted))[-1].strip()

    async def _ask_python(self, python: str) -> str | None:
        # Not under our own variables: a frozen executable's would lead it to the wrong libraries.
        done = await anyio.run_process(
            [python, "-ISc", "import platform; print(platform.python_version())"],
            check=False,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )
        return done.stdout.decode().strip() or None

    def _environment(self) -> dict[str, str]:
        """The variables of uv when we call it ourselves."""
        return {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._home()), "NO_COLOR": "1",
            "UV_PYTHON_INSTALL_DIR": str(self.folder / "pythons"), **self.installer_environment(),
        }  # fmt: skip

    async def _run(
        self, *arguments: str, input_text: str = "", progress: Progress | None = None, downloads: bool = False
    ) -> list[str]:
        """The lines that uv printed. Raises ImageError with its last words when it failed."""
        environment = self._environment()
        if downloads:
            environment["UV_PYTHON_DOWNLOADS"] = "manual"
        lines: list[str] = []
        try:
            process = await anyio.open_process(
                [self._uv, *arguments], stderr=subprocess.STDOUT, env=environment, cwd=self.folder, start_new_session=True,
                # Whoever makes something holds the lock, also when the daemon is killed meanwhile.
                pass_fds=(self._lock,),
            )  # fmt: skip
        except OSError as error:
            raise ImageError(f"uv cannot be started: {error}") from error
        try:
            assert process.stdin is not None and process.stdout is not None
            # One that needs no input may have ended by now.
            with contextlib.suppress(anyio.BrokenResourceError):
                await process.stdin.send(input_text.encode())
            await process.stdin.aclose()
            rest = ""
            async for chunk in TextReceiveStream(process.stdout, errors="replace"):
                *whole, rest = (rest + chunk).split("\n")
                for line in whole:
                    lines.append(mask_urls(line.rstrip()))
                    if progress is not None and lines[-1] and not line.startswith((" + ", " - ", " ~ ", " Downloaded")):
                        await progress(lines[-1])
            code = await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.aclose()
        if code != 0:
            raise ImageError(
                "\n".join(line for line in lines[-TAIL_LINES:] if line) or f"uv ended with exit code {code}"
            )
        return [line for line in (*lines, rest.rstrip()) if line]

    def _tag(self, wanted: Wanted) -> Path:
        text = f"{wanted.prefect} {wanted.python or self._python or PYTHON}"
        return self.folder / "tags" / hashlib.sha256(text.encode()).hexdigest()[:24]

    def remove_unused(self, retention_seconds: float) -> list[str]:
        """Environments that no run has used for so long are gone, never one in use; their names."""
        removed = []
        now = time.time()
        for made in sorted(self.folder.glob("p*-*")):
            if not made.is_dir() or not made.name.startswith(("packages-", "prefect-")):
                continue
            lock = self.folder / ("prefect.lock" if made.name.startswith("prefect-") else f"{made.name}.lock")
            with contextlib.suppress(BlockingIOError, OSError), run_environment.locked(str(lock), wait=False):
                marker = made / run_environment.COMPLETE
                is_whole = marker.exists()
                age = now - (marker if is_whole else made).stat().st_mtime
                if age < (retention_seconds if is_whole else min(HALF_MADE_SECONDS, retention_seconds)):
                    continue
                if run_environment.users_of(str(made)):
                    continue
                marker.unlink(missing_ok=True)
                folder_tree.remove(str(made))
                if lock.name != "prefect.lock":
                    lock.unlink(missing_ok=True)
                removed.append(made.name)
        # What is left of sets that could not be installed.
        for path in self.folder.glob("packages-*.lock"):
            with contextlib.suppress(BlockingIOError, OSError), run_environment.locked(str(path), wait=False):
                if not path.with_suffix("").exists() and now - path.stat().st_mtime > retention_seconds:
                    path.unlink()
        self._prune(everything=bool(removed))
        return removed

    def _prune(self, *, everything: bool) -> None:
        """Of what uv keeps to install it again, what no index names any more is gone; `everything`: whatever can be downloaded again.

        Environments lose nothing: they have the files themselves. A cache that the operator has named is the operator's own.
        """
        cache = self.folder / "cache"
        environment = {**self._environment(), "UV_LOCK_TIMEOUT": PRUNE_WAIT_SECONDS}
        if environment["UV_CACHE_DIR"] != str(cache) or not cache.is_dir():
            return
        # Offline, nothing can be downloaded again.
        options = ["--ci"] if everything and "UV_OFFLINE" not in environment else []
        with (
            contextlib.suppress(BlockingIOError),
            run_environment.locked(str(self.folder / "prefect.lock"), wait=False),
        ):
            try:
                # While a run installs, the cache is locked by its uv; the next time will do as well.
                subprocess.run(  # noqa: S603 (our own installer)
                    [self._uv, "cache", "prune", *options], env=environment, cwd=self.folder, capture_output=True, text=True,
                    check=True, timeout=PRUNE_SECONDS,
                )  # fmt: skip
            except subprocess.CalledProcessError as error:
                _log.warning("environment.cache_not_pruned", reason=mask_urls(error.stderr.strip()))
            except (OSError, subprocess.TimeoutExpired) as error:
                _log.warning("environment.cache_not_pruned", reason=str(error))

    def forget(self, run: str) -> None:
        """The run of that name uses none of them any more."""
        for made in self.folder.glob("p*-*"):
            with contextlib.suppress(OSError):
                (made / run_environment.USERS / run).unlink()
