"""One model per TOML table, with its defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from managedd.config.values import (
    AbsolutePath,
    ApiUrl,
    Capability,
    Destination,
    EngineUrl,
    Environment,
    HostService,
    Image,
    ImagePattern,
    IpAddress,
    Network,
    PositiveSeconds,
    Secret,
    SecretIndexUrl,
    SecretProxyUrl,
    Section,
    TimeZone,
)
from managedd.model.limits import MAX_TIME_LIMIT_SECONDS, OnExhausted, Plan
from managedd.model.log_limits import LogLimits


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
    """`user:password` as PREFECT_API_AUTH_STRING: opens every workspace. Beyond loopback it is this or keys."""
    max_body_bytes: int = Field(16 * 1024 * 1024, ge=1024 * 1024)
    max_frame_bytes: int = Field(4 * 1024 * 1024, ge=2 * 1024 * 1024)
    tls_certificate: AbsolutePath | None = None
    """PEM file, the server's certificate first, those of its issuers after it; with `tls_key`: HTTPS instead of HTTP."""
    tls_key: AbsolutePath | None = None
    trusted_proxies: list[Network] = Field(default_factory=list, max_length=100)
    """Whose X-Forwarded-For, -Proto, -Host, -Prefix and Forwarded are believed."""
    max_connections: int = Field(1000, ge=16)
    """On each listener."""
    max_connections_per_address: int | None = Field(None, ge=8)
    """Of them, from one address; None: three quarters. Trusted proxies may have all."""
    max_sockets: int = Field(500, ge=8)
    """Websockets of one address, or of one run."""
    stop_seconds: PositiveSeconds = 10.0
    """How long open requests may take when the daemon stops."""

    @property
    def address_connections(self) -> int:
        """The most connections from one address."""
        return self.max_connections_per_address or self.max_connections * 3 // 4

    @model_validator(mode="after")
    def _tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_certificate"
            raise ValueError(
                f"{missing} is missing: tls_certificate and tls_key belong together; allowed: both, or neither"
            )
        return self


class AuthSection(Section):
    """Who may come in."""

    mode: Literal["auto", "key"] = "auto"
    """auto: nobody needs a credential while the clients' listener is on a loopback address and there is no auth_string; key: everybody does."""


class UiSection(Section):
    """The web pages."""

    enabled: bool = True
    session_hours: float = Field(12.0, gt=0, le=24 * 30)
    """After signing in with a key, a browser is asked for it again after so long."""


class StoreSection(Section):
    """The embedded store."""

    data_dir: AbsolutePath = Field(default_factory=default_data_dir)
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    readers: int = Field(4, ge=2, le=16)
    """One of them is kept for the daemon itself."""


class SecretsSection(Section):
    """The key with which the store encrypts what is secret; a systemd credential `managedd-secrets-key` goes before both."""

    key_file: AbsolutePath | None = None
    """None: `key`, else a file that is made once in the data directory."""
    key: Secret = None
    """The key itself, in base64 or hexadecimal."""


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
    runtime: str | None = Field(None, min_length=1, max_length=200)
    dns: list[IpAddress] = Field(default_factory=list, max_length=8)
    capabilities: tuple[Capability, ...] = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
    """All that root keeps in a container."""
    firewall: Literal["auto", "require", "off"] = "auto"
    """Rules in the host's kernel that keep runs from the host: where they can be, or nothing runs without them, or none."""
    host_allow: list[HostService] = Field(default_factory=list, max_length=100)
    """What runs may reach of the engine's host beside the API."""
    egress_allow: list[Destination] | None = Field(None, max_length=500)
    """All that runs may reach beyond the host; None: anything but a cloud's metadata."""

    @model_validator(mode="after")
    def _held(self) -> Self:
        if self.egress_allow is not None and self.firewall == "off":
            raise ValueError(
                'egress_allow is held by the firewall, and firewall is "off"; allowed: "require" or "auto", or no egress_allow'
            )
        return self


class ProcessSection(Section):
    """Runs without a container engine: processes of this host, which nothing isolates."""

    trusted: bool = False
    """Whoever may start a run may do what the daemon's user may do: needed with several workspaces, with other hosts' clients, as root without auth_string."""
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
    memory_limit_bytes: int = Field(2 * 1024**3, ge=64 * 1024**2, le=1024**5)
    cpu_limit: float = Field(1.0, gt=0, le=1024)
    pids_limit: int = Field(1024, ge=16)
    disk_limit_bytes: int = Field(20 * 1024**3, ge=16 * 1024**2)
    """Of files that a run writes."""
    time_limit_seconds: int = Field(86_400, ge=1, le=MAX_TIME_LIMIT_SECONDS)
    install_timeout_seconds: int = Field(600, ge=1)
    cancel_grace_seconds: PositiveSeconds = 30.0
    """How long the client in the run may take to end a cancelled run by itself."""
    stop_grace_seconds: PositiveSeconds = 10.0
    """SIGTERM, this long, SIGKILL."""
    pending_deadline_seconds: PositiveSeconds = 900.0
    """A Pending run that makes no progress for so long is ended with a cause."""
    poll_seconds: PositiveSeconds = 1.0
    """The safety net under the wake-ups: how often the queue is looked at anyway."""
    log_lines_per_second: float | None = Field(5_000.0, ge=1)
    """Of what a run prints, at the rate at which it prints; None: any."""
    log_bytes_per_second: float | None = Field(4 * 1024**2, ge=1024)
    log_burst_seconds: float = Field(60.0, ge=1, le=86_400)
    """So many seconds' worth of either rate may come at once."""
    log_max_bytes: int | None = Field(512 * 1024**2, ge=64 * 1024)
    """Of one run's log: texts, names of loggers, 100 for each line and for each task run; None: any."""
    events_max_bytes: int | None = Field(512 * 1024**2, ge=64 * 1024)
    """Of the events that one run sends, those of its task runs among them; None: any."""
    ca_bundle: AbsolutePath | None = None
    """PEM file of extra certificate authorities that runs shall trust."""
    index_url: SecretIndexUrl = None
    extra_index_url: SecretIndexUrl = None
    http_proxy: SecretProxyUrl = None
    https_proxy: SecretProxyUrl = None
    no_proxy: str | None = None
    env: Environment = Field(default_factory=dict)
    """Environment of every run, below the pool's."""

    @property
    def log_limits(self) -> LogLimits:
        """The bounds of each run's log."""
        return LogLimits(
            lines_per_second=self.log_lines_per_second,
            bytes_per_second=self.log_bytes_per_second,
            burst_seconds=self.log_burst_seconds,
            max_bytes=self.log_max_bytes,
        )


class PlanSection(Section):
    """The limits of a workspace; None: no limit."""

    concurrent_runs: int | None = Field(None, ge=0, le=1_000_000)
    """Runs of managed pools at the same time."""
    managed_pools: int | None = Field(None, ge=0, le=1_000_000)
    compute_hours: float | None = Field(None, ge=0, le=1e9)
    """Each calendar month of `usage.time_zone`."""
    on_exhausted: Literal["finish", "stop"] = "finish"
    memory_limit_bytes: int | None = Field(None, ge=64 * 1024**2, le=1024**5)
    """The most that a run may ask for."""
    time_limit_seconds: int | None = Field(None, ge=1, le=MAX_TIME_LIMIT_SECONDS)
    """The longest that a run may take."""
    images: list[ImagePattern] | None = Field(None, min_length=1, max_length=100)
    """What runs may use, `*` for any characters; None: any image."""
    start_burst: int | None = Field(None, ge=1, le=1_000_000)
    starts_per_minute: float | None = Field(None, gt=0, le=1e9)

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


class HostSection(Section):
    """What all runs together may reserve of this host."""

    memory_bytes: int | None = Field(None, ge=64 * 1024**2, le=1024**5)
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
    logs_days: float | None = Field(None, gt=0)
    """After the run's end, while the run itself stays."""
    usage_days: float = Field(400.0, gt=0)
    """How long it is known which run used what; the sums of months stay."""
    audit_days: float = Field(365.0, gt=0)
    """How long the audit log keeps an entry, unless there are more than audit_rows."""
    audit_rows: int = Field(1_000_000, ge=1000)
