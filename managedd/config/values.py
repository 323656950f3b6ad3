"""What a setting may be: the types of values, and the table that they stand in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from managedd.errors import ErrorCode, ManagedError
from managedd.model import addresses, env_names, images

NONE = "none"


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))


def _filled(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and not secret.get_secret_value().strip():
        raise ValueError(f'is empty; leave the key out, or write "{NONE}"')
    return secret


def _secret_checked(check: Callable[[str], str]) -> Callable[[SecretStr | None], SecretStr | None]:
    """The check of a plain text, for a secret."""

    def checked(secret: SecretStr | None) -> SecretStr | None:
        return None if secret is None else SecretStr(check(secret.get_secret_value()))

    return checked


def _image(text: str) -> str:
    if not images.is_image_reference(text):
        raise ValueError(f"is no image reference; allowed: {images.ALLOWED}")
    return text


def _environment(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if not env_names.is_variable_name(name):
            raise ValueError(f"{name[:80]!r} is no name of a variable; allowed: {env_names.ALLOWED}")
        if env_names.is_reserved(name):
            raise ValueError(f"{name} is the run's own: each run gets its address, key and identity from the daemon")
        if "\0" in value:
            raise ValueError(f"{name} holds a null character, which no variable can")
    return env


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError):
        raise ValueError(
            f"{name!r} is no time zone; allowed: a name of the IANA database, such as 'Europe/Berlin' or 'UTC'"
        ) from None
    return name


ImagePattern = Annotated[str, Field(min_length=1, max_length=600, pattern=r"^[A-Za-z0-9._:/@*-]+$")]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400 * 366)]


class Section(BaseModel):
    """One table of the file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _none_is_a_word(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {
            name: None if value == NONE and name in cls.model_fields and _may_be_none(cls, name) else value
            for name, value in data.items()
        }


def _may_be_none(model: type[BaseModel], name: str) -> bool:
    return type(None) in get_args(model.model_fields[name].annotation)


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Secret = Annotated[SecretStr | None, AfterValidator(_filled)]
SecretIndexUrl = Annotated[Secret, AfterValidator(_secret_checked(addresses.http_url))]
SecretProxyUrl = Annotated[Secret, AfterValidator(_secret_checked(addresses.proxy_url))]
ApiUrl = Annotated[str, AfterValidator(addresses.api_url)]
EngineUrl = Annotated[str, AfterValidator(addresses.engine_url)]
IpAddress = Annotated[str, AfterValidator(addresses.ip_address)]
Network = Annotated[str, AfterValidator(addresses.network)]
Capability = Literal[
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP",
    "SETUID", "SYS_CHROOT",
]  # fmt: skip
"""What engines give to containers by themselves: anything beyond that is a way out of one."""
HostService = Annotated[str, AfterValidator(addresses.host_service)]
Destination = Annotated[str, AfterValidator(addresses.destination)]
Image = Annotated[str, AfterValidator(_image)]
Environment = Annotated[dict[str, str], AfterValidator(_environment)]


def wrong(message: str) -> ManagedError:
    """The error of settings that can't work."""
    return ManagedError(ErrorCode.CONFIG, message)
