"""The settings: one model per TOML table. `load.py` of the command line is the only caller of `load`; everything else gets values.

Order, later wins: defaults here, the TOML file, `MANAGEDD_SECTION__KEY` in the environment, command-line flags. A missing file, an
unknown key, an unknown variable or a bad value is a ManagedError(CONFIG) that names it and says what is allowed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

PositiveSeconds = Annotated[float, Field(gt=0, le=86_400 * 366)]


class Section(BaseModel):
    """One table of the file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def default_data_dir() -> Path:
    """`/var/lib/managedd` for root, else the user's data folder (XDG base directories)."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/managedd")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "managedd"


class ServerSection(Section):
    """The listener that clients use."""

    host: str = "127.0.0.1"
    port: int = Field(4200, ge=0, le=65535)
    auth_string: SecretStr | None = None
    """`user:password` as PREFECT_API_AUTH_STRING; needed to listen on anything but loopback."""
    max_body_bytes: int = Field(16 * 1024 * 1024, ge=1024 * 1024)
    max_frame_bytes: int = Field(4 * 1024 * 1024, ge=2 * 1024 * 1024)
    stop_seconds: PositiveSeconds = 10.0
    """How long open requests may take when the daemon stops."""


class StoreSection(Section):
    """The embedded store."""

    data_dir: Path = Field(default_factory=default_data_dir)
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    readers: int = Field(3, ge=1, le=16)


class LogSection(Section):
    """The daemon's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class DockerSection(Section):
    """The container engine."""

    host: str | None = None
    """unix:// or tcp:// address; None: DOCKER_HOST, the docker context, or the usual sockets."""
    log_max_size: str = Field("50m", pattern=r"^\d+[kmg]$")
    log_max_files: int = Field(2, ge=1, le=100)
    runtime: str | None = None
    dns: list[str] = Field(default_factory=list, max_length=8)


class RunsSection(Section):
    """What every run gets, unless its pool, deployment or run says otherwise within these bounds."""

    driver: Literal["auto", "docker", "process"] = "auto"
    listen_host: str | None = None
    """Where the runs' listener listens; None: on the gateway of the runs' own network, which no other host reaches."""
    listen_port: int = Field(4201, ge=0, le=65535)
    """Kept across restarts; when it is taken, a free one is used from then on."""
    api_url: str | None = None
    """The API's address as runs see it, for engines whose gateway is not on this host."""
    image: str = "prefecthq/prefect:3-latest"
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    memory_limit_bytes: int = Field(2 * 1024**3, ge=64 * 1024**2)
    cpu_limit: float = Field(1.0, gt=0, le=1024)
    pids_limit: int = Field(1024, ge=16)
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
    ca_bundle: Path | None = None
    """PEM file of extra certificate authorities that runs shall trust."""
    index_url: SecretStr | None = None
    extra_index_url: SecretStr | None = None
    http_proxy: SecretStr | None = None
    https_proxy: SecretStr | None = None
    no_proxy: str | None = None
    env: dict[str, str] = Field(default_factory=dict)
    """Environment of every run, below the pool's."""


class PlanSection(Section):
    """The limits of a workspace."""

    concurrent_runs: int | None = Field(None, ge=0)
    """Runs of managed pools at the same time; None: no limit."""


class SchedulerSection(Section):
    """How far ahead deployment schedules become runs (Prefect's defaults)."""

    min_runs: int = Field(3, ge=1)
    max_runs: int = Field(100, ge=1, le=1000)
    min_horizon_seconds: PositiveSeconds = 3600.0
    max_horizon_seconds: PositiveSeconds = 8_640_000.0
    interval_seconds: PositiveSeconds = 60.0
    late_after_seconds: PositiveSeconds = 15.0


class RetentionSection(Section):
    """How long what ended is kept; days."""

    events_days: float = Field(7.0, gt=0)
    runs_days: float | None = Field(90.0, gt=0)


def _default_plans() -> dict[str, PlanSection]:
    return {"free": PlanSection(concurrent_runs=1), "pro": PlanSection(concurrent_runs=10), "unlimited": PlanSection()}


class Settings(Section):
    """Everything that can be set."""

    server: ServerSection = ServerSection()
    store: StoreSection = Field(default_factory=StoreSection)
    log: LogSection = LogSection()
    docker: DockerSection = DockerSection()
    runs: RunsSection = RunsSection()
    scheduler: SchedulerSection = SchedulerSection()
    retention: RetentionSection = RetentionSection()
    plans: dict[str, PlanSection] = Field(default_factory=_default_plans)
    default_plan: str = "pro"
    """The plan of the default workspace."""
