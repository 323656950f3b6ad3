"""What a rendered job configuration of a managed pool asks for, checked: each error names the variable and what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from managedd.errors import ManagedError, invalid
from managedd.model import env_names, images
from managedd.model.env_names import is_reserved, is_variable_name
from managedd.model.images import is_image_reference
from managedd.model.limits import MAX_TIME_LIMIT_SECONDS
from managedd.model.urls import has_unclear_credentials

DEFAULT_IMAGE = "prefecthq/prefect:3-latest"
MIN_MEMORY_BYTES = 32 * 1024**2
MAX_MEMORY_BYTES = 1024**5
MAX_CPUS = 1024
EXTRA_PACKAGES = "EXTRA_PIP_PACKAGES"
"""The environment variable that Prefect's images install packages from."""
MAX_PACKAGES = 200
MAX_PACKAGE_LENGTH = 2_000
MAX_ENV = 1_000
MAX_ENV_VALUE_LENGTH = 100_000
"""Linux takes 128 KiB for one variable with its name."""
MAX_ENV_LENGTH = 1_000_000
"""Linux takes 2 MiB for environment and arguments together."""
_MEMORY = re.compile(r"(?P<number>\d{1,20}(?:\.\d{1,6})?)\s*(?P<unit>[A-Za-z]*)")
_MEMORY_UNITS = {
    "": 1, "B": 1,
    "k": 10**3, "K": 10**3, "KB": 10**3, "kB": 10**3, "M": 10**6, "MB": 10**6, "G": 10**9, "GB": 10**9, "T": 10**12, "TB": 10**12,
    "Ki": 2**10, "KiB": 2**10, "Mi": 2**20, "MiB": 2**20, "Gi": 2**30, "GiB": 2**30, "Ti": 2**40, "TiB": 2**40,
}  # fmt: skip

# Requirements: the part of PEP 508 and of pip's URLs that names a package and nothing else
_PACKAGE_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_EXTRAS = rf"(?:\s*\[\s*(?:{_PACKAGE_NAME}(?:\s*,\s*{_PACKAGE_NAME})*)?\s*\])?"
_VERSION = r"(?:===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9][A-Za-z0-9._+!*-]*"
_VERSIONS = rf"(?:\s*\(?\s*{_VERSION}(?:\s*,\s*{_VERSION})*\s*,?\s*\)?)?"
_URL = r"(?:(?:git|hg|svn|bzr)\+)?(?:https?|ssh|file|git)://[^\s;\"'`\\]+"
_MARKER = r"(?:\s*;\s*[A-Za-z0-9_.\s\"'<>=!~()+*,/-]+)?"
_NAMED = re.compile(rf"{_PACKAGE_NAME}{_EXTRAS}{_VERSIONS}{_MARKER}", re.ASCII)
_NAMED_URL = re.compile(rf"(?:{_PACKAGE_NAME}{_EXTRAS}\s*@\s*)?{_URL}(?:\s{_MARKER})?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedJob:
    """What a managed run wants; None means that the plan or the daemon decides."""

    env: dict[str, str] = field(default_factory=dict)
    """As written: `strip_reserved` takes away what the run may not set."""
    image: str = DEFAULT_IMAGE
    pip_packages: tuple[str, ...] = ()
    """May hold credentials in URLs: never logged."""
    timeout_seconds: int | None = None
    memory_bytes: int | None = None
    cpus: float | None = None


def managed_job(configuration: Mapping[str, Any], *, default_image: str = DEFAULT_IMAGE) -> ManagedJob:
    """The job of a configuration that is rendered and substituted; an INVALID error names the first wrong variable."""
    check_offered_variables(configuration)
    env, extra = _split_packages(_env(configuration.get("env")))
    packages = (*_packages(configuration.get("pip_packages")), *extra)
    if len(packages) > MAX_PACKAGES:
        raise invalid(f"job_variables.pip_packages: {len(packages)} requirements; allowed: {MAX_PACKAGES}")
    image = configuration.get("image")
    memory, cpus, timeout = (configuration.get(name) for name in ("memory_limit", "cpu_limit", "timeout"))
    return ManagedJob(
        env=env,
        image=default_image if _is_empty(image) else check_image(image),
        pip_packages=packages,
        timeout_seconds=None if _is_empty(timeout) else _timeout(timeout),
        memory_bytes=None if _is_empty(memory) else parse_memory(memory),
        cpus=None if _is_empty(cpus) else _cpus(cpus),
    )


def check_offered_variables(*layers: Mapping[str, Any] | None) -> None:
    """Returns when no layer of a managed pool's variables asks for what is not offered; else an INVALID error explains it."""
    for layer in layers:
        if layer and layer.get("federated_identity"):
            raise invalid(
                "job_variables.federated_identity: federated identity is not offered yet: this server issues no identity "
                "tokens to runs. Leave it out, and give the run its cloud credentials by a block",
            )


def _is_empty(value: Any) -> bool:
    return value is None or value == ""


def parse_memory(value: Any) -> int:
    """The bytes that `512Mi`, `2Gi`, `1G` or a number mean; an INVALID error says what is allowed."""
    allowed = "allowed: a number of bytes, or a text with one of the units Ki, Mi, Gi, Ti (1024) or K, M, G, T (1000)"
    shown = str(value)[:60]
    amount: float
    if isinstance(value, int) and not isinstance(value, bool):
        amount = value
    elif isinstance(value, float) and value.is_integer():
        amount = int(value)
    elif isinstance(value, str) and (found := _MEMORY.fullmatch(value.strip())) and found["unit"] in _MEMORY_UNITS:
        number = float(found["number"]) if "." in found["number"] else int(found["number"])
        amount = number * _MEMORY_UNITS[found["unit"]]
    else:
        raise invalid(f"job_variables.memory_limit: {shown!r} is no amount of memory; {allowed}")
    if not MIN_MEMORY_BYTES <= amount <= MAX_MEMORY_BYTES:
        raise invalid(f"job_variables.memory_limit: {shown!r} is not between 32Mi and 1024Ti; {allowed}")
    return int(amount)


def _cpus(value: Any) -> float:
    number: float | None = None
    if isinstance(value, str):
        text = value.strip()
        try:
            number = float(text[:-1]) / 1000 if text.endswith("m") else float(text)
        except ValueError:
            number = None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = min(value, 2 * MAX_CPUS)
    if number is None or not math.isfinite(number) or not 0.01 <= number <= MAX_CPUS:
        raise invalid(
            f"job_variables.cpu_limit: {str(value)[:60]!r} is no number of processors; allowed: 0.01 to {MAX_CPUS}, "
            "or thousandths such as 500m",
        )
    return float(number)


def _timeout(value: Any) -> int:
    seconds: int | None = None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 20:
        seconds = int(value)
    elif (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer()):
        seconds = int(value)
    if seconds is None or not 0 < seconds <= MAX_TIME_LIMIT_SECONDS:
        raise invalid(
            f"job_variables.timeout: {str(value)[:60]!r} is no time limit; allowed: whole seconds, 1 to {MAX_TIME_LIMIT_SECONDS}",
        )
    return seconds


def check_image(value: Any) -> str:
    """The image reference, when it is one; else an INVALID error says what is allowed."""
    if not isinstance(value, str) or not is_image_reference(value):
        raise invalid(f"job_variables.image: {str(value)[:100]!r} is no image reference; allowed: {images.ALLOWED}")
    return str(value)


def _packages(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if not isinstance(value, list | tuple):
        raise invalid(
            "job_variables.pip_packages: must be a list of pip requirements, for example ['pandas>=2', 'requests']"
        )
    return tuple(check_package(item, index) for index, item in enumerate(value))


def check_package(value: Any, index: int = 0) -> str:
    """The requirement without blanks around it, when it names a package and does nothing else; else an INVALID error.

    Options of pip, further lines, comments and paths on the host are refused. The error does not repeat a URL, which may
    hold credentials.
    """
    where = f"job_variables.pip_packages[{index}]"
    allowed = (
        "allowed: a requirement such as 'pandas>=2', 'package[extra]==1.0', 'package @ https://…' or 'git+https://…'"
    )
    if not isinstance(value, str):
        raise invalid(f"{where}: must be a text; {allowed}")
    text = value.strip(" ")
    shown = "the requirement" if "://" in text else repr(text[:80])
    if not text or len(text) > MAX_PACKAGE_LENGTH:
        raise invalid(f"{where}: empty, or longer than {MAX_PACKAGE_LENGTH} characters; {allowed}")
    if text.startswith("-") or re.search(r"\s-", text):
        raise invalid(f"{where}: {shown} holds an option for pip, and options can't be given here; {allowed}")
    if not text.isprintable():
        raise invalid(f"{where}: {shown} holds a line break or another control character; {allowed}")
    if _NAMED.fullmatch(text) is None and _NAMED_URL.fullmatch(text) is None:
        raise invalid(f"{where}: {shown} is no requirement; {allowed}")
    url = re.search(_URL, text)
    if url is not None and has_unclear_credentials(url[0]):
        raise invalid(
            f"{where}: {shown} holds a user name or password with '@', '/', '?' or '#' in it; percent-encode it, "
            "for example '%40' for '@'",
        )
    return text


def _split_packages(env: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The environment, and the packages that it asks the image's entry point for: they are installed as all others are.

    Where they are more than plain requirements, options for pip for example, they are left to the image.
    """
    words = env.get(EXTRA_PACKAGES, "").split()
    try:
        packages = tuple(check_package(word) for word in words)
    except ManagedError:
        return dict(env), ()
    return {name: text for name, text in env.items() if name != EXTRA_PACKAGES}, packages


def _env(value: Any) -> dict[str, str]:
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        raise invalid("job_variables.env: must be an object of names and texts")
    if len(value) > MAX_ENV:
        raise invalid(f"job_variables.env: {len(value)} variables; allowed: {MAX_ENV}")
    env: dict[str, str] = {}
    for name, content in value.items():
        if not isinstance(name, str) or not is_variable_name(name):
            raise invalid(
                f"job_variables.env: {str(name)[:80]!r} is no name of a variable; allowed: {env_names.ALLOWED}"
            )
        if content is None:
            continue  # takes the variable away, as in Prefect
        if not isinstance(content, str | int | float):
            raise invalid(f"job_variables.env.{name}: must be a text, a number, true or false")
        text = str(content)
        if "\0" in text or len(text.encode("utf-8", "replace")) > MAX_ENV_VALUE_LENGTH:
            raise invalid(f"job_variables.env.{name}: holds a NUL, or is longer than {MAX_ENV_VALUE_LENGTH} bytes")
        env[name] = text
    if sum(len(name) + len(text.encode("utf-8", "replace")) for name, text in env.items()) > MAX_ENV_LENGTH:
        raise invalid(f"job_variables.env: all together longer than {MAX_ENV_LENGTH} bytes")
    return env


def strip_reserved(env: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The environment without the names that are the run's own, and those names.

    A user's variables never replace the address or the key of the run. The client reads its settings in any case of letters,
    so case does not matter here either.
    """
    dropped = tuple(name for name in env if is_reserved(name))
    return {name: value for name, value in env.items() if name not in dropped}, dropped
