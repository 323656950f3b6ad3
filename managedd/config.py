"""The settings: one model per TOML table, the only reader of the file and the environment; everything else gets values.

Order, later wins: defaults here, the TOML file, `MANAGEDD_SECTION__KEY` in the environment, command-line flags. Tables are merged key by
key. A missing file, an unknown key, an unknown variable or a bad value is a ManagedError(CONFIG) that names it and says what is allowed.
TOML has no null and the environment has only text: the word "none" stands for it where a key may be empty.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import ssl
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError, TomlConfigSettingsSource

from managedd.errors import ErrorCode, ManagedError
from managedd.model import addresses, env_names, images
from managedd.model.limits import OnExhausted, Plan

DEFAULT_FILE = Path("/etc/managedd/config.toml")
"""Read when it exists and neither `--config` nor MANAGEDD_CONFIG names another."""
FILE_VARIABLE = "MANAGEDD_CONFIG"
ENV_PREFIX = "MANAGEDD_"
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

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

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
Image = Annotated[str, AfterValidator(_image)]
Environment = Annotated[dict[str, str], AfterValidator(_environment)]


def default_data_dir() -> Path:
    """`/var/lib/managedd` for root, else the user's data folder (XDG base directories)."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/managedd")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "managedd"


class ServerSection(Section):
    """The listener that clients use."""

    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(4200, ge=0, le=65535)
    auth_string: Secret = None
    """`user:password` as PREFECT_API_AUTH_STRING; needed to listen on anything but loopback."""
    max_body_bytes: int = Field(16 * 1024 * 1024, ge=1024 * 1024)
    max_frame_bytes: int = Field(4 * 1024 * 1024, ge=2 * 1024 * 1024)
    max_connections: int = Field(1000, ge=16)
    """On each listener."""
    max_sockets: int = Field(500, ge=8)
    """Websockets of one address, or of one run."""
    stop_seconds: PositiveSeconds = 10.0
    """How long open requests may take when the daemon stops."""


class StoreSection(Section):
    """The embedded store."""

    data_dir: AbsolutePath = Field(default_factory=default_data_dir)
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    readers: int = Field(4, ge=2, le=16)
    """One of them is kept for the daemon itself."""


class LogSection(Section):
    """The daemon's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class DockerSection(Section):
    """The container engine."""

    host: EngineUrl | None = None
    """unix:// or tcp:// address; None: DOCKER_HOST, the docker context, or the usual sockets."""
    log_max_size: str = Field("50m", pattern=r"^[1-9]\d*[kmg]$")
    log_max_files: int = Field(2, ge=1, le=100)
    runtime: str | None = None
    dns: list[IpAddress] = Field(default_factory=list, max_length=8)


class ProcessSection(Section):
    """Runs without a container engine: processes of this host, which nothing isolates."""

    trusted: bool = False
    """Whoever may start a run may do what the daemon's user may do: needed with several workspaces, or with clients of other hosts."""
    python: str | None = Field(None, min_length=1, max_length=500)
    """A path or a version; None: the first on this host that Prefect can use."""
    path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    """PATH of runs, behind the commands of their environment."""
    env_dir: AbsolutePath | None = None
    """Where the environments are; None: in the data directory."""
    env_retention_days: float = Field(14.0, gt=0, le=3660)
    output_max_bytes: int = Field(50 * 1024 * 1024, ge=64 * 1024)
    output_max_files: int = Field(2, ge=1, le=100)


class RunsSection(Section):
    """What every run gets, unless its pool, deployment or run says otherwise within these bounds."""

    driver: Literal["auto", "docker", "process"] = "auto"
    listen_host: IpAddress | None = None
    """Where the runs' listener listens; None: on the gateway of the runs' own network, which no other host reaches."""
    listen_port: int = Field(4201, ge=0, le=65535)
    """Kept across restarts; when it is taken, a free one is used until another one is set."""
    api_url: ApiUrl | None = None
    """The API's address as runs see it; with `listen_host`, for engines whose gateway is not on this host."""
    image: Image = "prefecthq/prefect:3-latest"
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    memory_limit_bytes: int = Field(2 * 1024**3, ge=64 * 1024**2)
    cpu_limit: float = Field(1.0, gt=0, le=1024)
    pids_limit: int = Field(1024, ge=16)
    disk_limit_bytes: int = Field(20 * 1024**3, ge=16 * 1024**2)
    """Of files that a run writes."""
    time_limit_seconds: int = Field(86_400, ge=1)
    install_timeout_seconds: int = Field(600, ge=1)
    cancel_grace_seconds: PositiveSeconds = 30.0
    """How long the client in the run may take to end a cancelled run by itself."""
    stop_grace_seconds: PositiveSeconds = 10.0
    """SIGTERM, this long, SIGKILL."""
    pending_deadline_seconds: PositiveSeconds = 900.0
    """A Pending run that makes no progress for so long is ended with a cause."""
    poll_seconds: PositiveSeconds = 1.0
    """The safety net under the wake-ups: how often the queue is looked at anyway."""
    ca_bundle: AbsolutePath | None = None
    """PEM file of extra certificate authorities that runs shall trust."""
    index_url: SecretIndexUrl = None
    extra_index_url: SecretIndexUrl = None
    http_proxy: SecretProxyUrl = None
    https_proxy: SecretProxyUrl = None
    no_proxy: str | None = None
    env: Environment = Field(default_factory=dict)
    """Environment of every run, below the pool's."""


class PlanSection(Section):
    """The limits of a workspace; None: no limit."""

    concurrent_runs: int | None = Field(None, ge=0)
    """Runs of managed pools at the same time."""
    managed_pools: int | None = Field(None, ge=0)
    compute_hours: float | None = Field(None, ge=0)
    """Each calendar month of `usage.time_zone`."""
    on_exhausted: Literal["finish", "stop"] = "finish"
    memory_limit_bytes: int | None = Field(None, ge=64 * 1024**2)
    """The most that a run may ask for."""
    time_limit_seconds: int | None = Field(None, ge=1)
    """The longest that a run may take."""
    images: list[ImagePattern] | None = Field(None, min_length=1, max_length=100)
    """What runs may use, `*` for any characters; None: any image."""
    start_burst: int | None = Field(None, ge=1)
    starts_per_minute: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _rate(self) -> Self:
        if (self.start_burst is None) != (self.starts_per_minute is None):
            raise ValueError("start_burst and starts_per_minute are one limit; allowed: both, or neither")
        return self

    def plan(self, name: str) -> Plan:
        """The plan of that name."""
        images = None if self.images is None else tuple(self.images)
        on_exhausted = OnExhausted(self.on_exhausted)
        return Plan(name=name, **{**self.model_dump(), "on_exhausted": on_exhausted, "images": images})


class UsageSection(Section):
    """Compute hours."""

    time_zone: TimeZone = "UTC"
    """Of whose months they are counted."""
    keep_days: float = Field(400.0, gt=0)
    """How long it is known which run used what; the sums of months stay."""


class HostSection(Section):
    """What all runs together may reserve of this host."""

    memory_bytes: int | None = Field(None, ge=64 * 1024**2)
    """None: what the host has, less the larger of 1 GiB and a tenth."""
    cpu_overcommit: float = Field(8.0, gt=0, le=1000)
    """So many times the host's processors."""
    min_free_disk_bytes: int = Field(2 * 1024**3, ge=0)
    """No run is started on a disk with less."""


class SchedulerSection(Section):
    """How far ahead deployment schedules become runs (Prefect's defaults)."""

    min_runs: int = Field(3, ge=1)
    max_runs: int = Field(100, ge=1, le=1000)
    min_horizon_seconds: PositiveSeconds = 3600.0
    max_horizon_seconds: PositiveSeconds = 8_640_000.0
    interval_seconds: PositiveSeconds = 60.0
    late_after_seconds: PositiveSeconds = 15.0

    @model_validator(mode="after")
    def _least_and_most(self) -> Self:
        if self.min_runs > self.max_runs:
            raise ValueError(
                f"min_runs = {self.min_runs} is more than max_runs = {self.max_runs}; allowed: at most as many"
            )
        if self.min_horizon_seconds > self.max_horizon_seconds:
            raise ValueError(
                f"min_horizon_seconds = {self.min_horizon_seconds} is more than max_horizon_seconds = {self.max_horizon_seconds}; "
                "allowed: at most as many"
            )
        return self


class RetentionSection(Section):
    """How long what ended is kept; days."""

    events_days: float = Field(7.0, gt=0)
    runs_days: float | None = Field(90.0, gt=0)


def _default_plans() -> dict[str, PlanSection]:
    return {
        "free": PlanSection(concurrent_runs=1, managed_pools=1, compute_hours=10, **_MANAGED_RUN),
        "pro": PlanSection(concurrent_runs=10, managed_pools=5, compute_hours=250, **_MANAGED_RUN),
        "unlimited": PlanSection(),
    }


_MANAGED_RUN: dict[str, Any] = {
    "memory_limit_bytes": 2 * 1024**3,
    "time_limit_seconds": 86_400,
    "images": [
        "prefecthq/prefect:*",
        "prefecthq/prefect@*",
        "prefecthq/prefect-client:*",
        "prefecthq/prefect-client@*",
    ],
}
"""What Prefect's managed pools give a run on either plan."""


class Settings(Section):
    """Everything that can be set."""

    server: ServerSection = ServerSection()
    store: StoreSection = Field(default_factory=StoreSection)
    log: LogSection = LogSection()
    docker: DockerSection = DockerSection()
    process: ProcessSection = ProcessSection()
    runs: RunsSection = RunsSection()
    scheduler: SchedulerSection = SchedulerSection()
    retention: RetentionSection = RetentionSection()
    usage: UsageSection = UsageSection()
    host: HostSection = HostSection()
    plans: dict[str, PlanSection] = Field(default_factory=_default_plans)
    default_plan: str = "pro"
    """The plan of the default workspace, applied when it is changed."""

    def all_plans(self) -> list[Plan]:
        """Every plan."""
        return [section.plan(name) for name, section in self.plans.items()]

    @field_validator("plans", mode="before")
    @classmethod
    def _over_the_built_in_plans(cls, plans: Any) -> Any:
        if not isinstance(plans, dict):
            return plans
        given: dict[str, Any] = dict(plans)
        for name, plan in _default_plans().items():
            mine = given.setdefault(name, {})
            if isinstance(mine, dict):
                given[name] = {**plan.model_dump(), **mine}
        return given

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        refusal = self.why_no_processes(workspaces=1)
        if self.runs.driver == "process" and refusal is not None:
            raise ValueError(f"runs.driver = 'process': {refusal}")
        if self.default_plan not in self.plans:
            raise ValueError(f"default_plan = {self.default_plan!r} is no plan; plans: {', '.join(sorted(self.plans))}")
        if self.server.auth_string is None and not is_loopback(self.server.host):
            raise ValueError(
                f"server.host = {self.server.host!r} lets other hosts in, and nothing asks them who they are: set server.auth_string "
                '= "user:password" (clients set the same as PREFECT_API_AUTH_STRING), or listen on 127.0.0.1'
            )
        return self

    def why_no_processes(self, *, workspaces: int) -> str | None:
        """Why runs may not be processes of this host; None when they may."""
        if self.process.trusted:
            return None
        if not is_loopback(self.server.host):
            reason = f"server.host = {self.server.host!r} lets other hosts in"
        elif workspaces > 1:
            reason = f"there are {workspaces} workspaces"
        else:
            return None
        return (
            f"processes are not isolated from this host or from each other, and {reason}: set process.trusted = true if everybody who may "
            "start a run may do what the daemon's user may do, or use a container engine"
        )


def is_loopback(host: str) -> bool:
    """Whether only this host reaches that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_ca_bundle(settings: Settings) -> bytes | None:
    """The certificate authorities of `runs.ca_bundle`. Raises ManagedError(CONFIG) when the file can't be read or has none.

    Not a part of loading: commands that only ask the daemon may run as users who can't read the file.
    """
    path = settings.runs.ca_bundle
    if path is None:
        return None
    try:
        content = path.read_bytes()
        trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusted.load_verify_locations(cafile=path)
    except ssl.SSLError:
        trusted = None
    except OSError as error:
        raise _wrong(f"runs.ca_bundle: {path} can't be read: {error.strerror or error}") from None
    if trusted is None or not trusted.cert_store_stats()["x509"]:
        raise _wrong(
            f"runs.ca_bundle: {path} holds no certificate, or a damaged one; allowed: a PEM file with one -----BEGIN CERTIFICATE----- block or more"
        )
    return content


# --- loading -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The settings, and where each one that is no default came from: by dotted key, the file, the variable or "flag"."""

    settings: Settings
    file: Path | None
    origins: Mapping[str, str]


def load(path: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """The settings of the file (None: the usual one, if any), the environment, and `overrides` by dotted key (None: not given).

    Raises ManagedError(CONFIG) that names every key or variable that is wrong.
    """
    return load_with_origins(path, overrides).settings


def load_with_origins(path: Path | None, overrides: Mapping[str, Any]) -> Loaded:
    """As `load`, and where each value came from."""
    file = _chosen_file(path)
    _refuse_unknown_variables()
    flags: dict[str, Any] = {}
    for key, value in overrides.items():
        if value is not None:
            _put(flags, key.split("."), value)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in ((str(file), _from_file(file)), ("", _from_environment()), ("flag", flags)):
        merged = _merged(merged, values)
        for path_of in _leaves(values):
            origins[".".join(path_of)] = origin or _variable(path_of)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        told = [_told(item["type"], item["loc"], item["msg"], origins) for item in error.errors(include_url=False)]
        raise _wrong("; ".join(told)) from None
    return Loaded(settings=settings, file=file, origins=origins)


class _Sources(Settings, BaseSettings):  # type: ignore[misc]  # their two model_config types differ
    """`Settings` as pydantic-settings' sources want to see them; never instantiated."""


def _wrong(message: str) -> ManagedError:
    return ManagedError(ErrorCode.CONFIG, message)


def _chosen_file(path: Path | None) -> Path | None:
    named = path or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    if named is not None:
        return named.expanduser()
    # Not `exists()`: a file that is there and can't be looked at must not pass for one that isn't.
    try:
        DEFAULT_FILE.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _wrong(f"the configuration file {DEFAULT_FILE} can't be read: {error.strerror}") from None
    return DEFAULT_FILE


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        # pydantic-settings takes a missing file for an empty one.
        file.open("rb").close()
        return dict(TomlConfigSettingsSource(_Sources, toml_file=file)())
    except OSError as error:
        raise _wrong(f"the configuration file {file} can't be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(f"the configuration file {file} is no TOML: {error}") from None


def _from_environment() -> dict[str, Any]:
    try:
        return dict(EnvSettingsSource(_Sources, env_prefix=ENV_PREFIX, env_nested_delimiter="__")())
    except SettingsError:
        # It names the section only, and its cause quotes the value.
        raise _wrong(
            "a list or table in the environment must be JSON: "
            + ", ".join(name for name in sorted(_variables(json_only=True)) if name in map(str.upper, os.environ))
        ) from None


def _variables(*, json_only: bool = False) -> list[str]:
    """The name of every variable that is read, but those of single plans."""
    found = []
    for key, annotation in _keys():
        if not json_only or get_origin(annotation) in (list, dict):
            found.append(_variable(key))
    return found


def _keys() -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            for inner, inner_field in field.annotation.model_fields.items():
                yield (name, inner), inner_field.annotation
        else:
            yield (name,), field.annotation


def _variable(key: tuple[str, ...]) -> str:
    return ENV_PREFIX + "__".join(key).upper()


def _refuse_unknown_variables() -> None:
    known = _variables()
    plan_keys = [name.upper() for name in PlanSection.model_fields]
    told = []
    for name in sorted(os.environ):
        upper = name.upper()
        if not upper.startswith(ENV_PREFIX) or upper in known or upper == FILE_VARIABLE:
            continue
        parts = upper.removeprefix(ENV_PREFIX).split("__")
        if len(parts) == 3 and parts[0] == "PLANS" and parts[1] and parts[2] in plan_keys:
            continue
        # Without the prefix, which would make any two names look alike.
        close = difflib.get_close_matches(
            upper.removeprefix(ENV_PREFIX), [other.removeprefix(ENV_PREFIX) for other in (*known, FILE_VARIABLE)], n=1
        )
        hint = f"did you mean {ENV_PREFIX}{close[0]}?" if close else f"settings are {ENV_PREFIX}SECTION__KEY"
        told.append(f"unknown variable {name}: {hint}")
    if told:
        raise _wrong("; ".join(told))


def _told(kind: str, where: tuple[int | str, ...], message: str, origins: Mapping[str, str]) -> str:
    """One error in one sentence: the key, where it was set, what is wrong, what is allowed."""
    message = message.removeprefix("Value error, ")
    if not where:
        return message
    key = ".".join(map(str, where))
    candidates = [key, *(known for known in origins if known.startswith(key + "."))]
    prefixes = [".".join(map(str, where[:size])) for size in range(len(where) - 1, 0, -1)]
    origin = next((origins[name] for name in [*candidates, *prefixes] if name in origins), None)
    said = f"{key} ({origin})" if origin else key
    if kind != "extra_forbidden":
        return f"{said}: {message}"
    allowed = _allowed(where[:-1])
    close = difflib.get_close_matches(str(where[-1]), allowed, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{said}: unknown key; {hint}allowed here: {', '.join(allowed)}"


def _allowed(where: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in where:
        field = model.model_fields.get(str(part))
        annotation = PlanSection if field is None or str(part) == "plans" else field.annotation
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else PlanSection
    return sorted(model.model_fields)


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(under)
    for name, value in over.items():
        below = made.get(name)
        made[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return made


def _put(into: dict[str, Any], key: list[str], value: Any) -> None:
    for part in key[:-1]:
        into = into.setdefault(part, {})
    into[key[-1]] = value


def _leaves(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name)
