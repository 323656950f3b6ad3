"""All tables together, and what must fit between them."""

from __future__ import annotations

import ipaddress
import ssl
from functools import lru_cache
from typing import Any, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from managedd.config.sections import (
    AuthSection,
    DockerSection,
    HostSection,
    LogSection,
    PlanSection,
    ProcessSection,
    RetentionSection,
    RunsSection,
    SchedulerSection,
    SecretsSection,
    ServerSection,
    StoreSection,
    UiSection,
    UsageSection,
)
from managedd.config.values import Section, wrong
from managedd.model.images import is_allowed
from managedd.model.limits import Plan


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
    auth: AuthSection = AuthSection()
    ui: UiSection = UiSection()
    store: StoreSection = Field(default_factory=StoreSection)
    secrets: SecretsSection = SecretsSection()
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

    def plans_without_the_usual_image(self) -> list[str]:
        """The names of the plans whose `images` do not allow `runs.image`."""
        return [plan.name for plan in self.all_plans() if plan.images and not is_allowed(self.runs.image, plan.images)]

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
        refusal = self.why_no_processes(workspaces=1, as_root=False)
        if self.runs.driver == "process" and refusal is not None:
            raise ValueError(f"runs.driver = 'process': {refusal}")
        if self.default_plan not in self.plans:
            raise ValueError(f"default_plan = {self.default_plan!r} is no plan; plans: {', '.join(sorted(self.plans))}")
        return self

    @property
    def is_open(self) -> bool:
        """Whether whoever reaches the clients' listener may do everything."""
        server = self.server
        # A proxy lets others in, wherever it reaches us from.
        only_us = is_loopback(server.host) and not server.trusted_proxies
        return self.auth.mode == "auto" and server.auth_string is None and only_us

    @property
    def why_nobody_comes_in(self) -> str:
        """What to do when there is no credential at all, and one is needed."""
        if not is_loopback(self.server.host):
            why = f"server.host = {self.server.host!r} lets other hosts in"
        elif self.server.trusted_proxies:
            why = "a proxy (server.trusted_proxies) lets other hosts in"
        else:
            why = f"auth.mode = {self.auth.mode!r} asks everybody for one"
        return (
            f"{why}, and there is no credential yet: make a key with `managedd key create --workspace default/default --name NAME --role admin`, "
            'or set server.auth_string = "user:password" (clients set either as PREFECT_API_AUTH_STRING), or listen on 127.0.0.1 with auth.mode = "auto"'
        )

    def why_no_processes(self, *, workspaces: int, as_root: bool) -> str | None:
        """Why runs may not be processes of this host; None when they may. `as_root`: of a daemon that runs as root."""
        if self.process.trusted:
            return None
        more = ""
        runs_host = self.runs.listen_host
        if not is_loopback(self.server.host):
            reason = f"server.host = {self.server.host!r} lets other hosts in"
        elif self.server.trusted_proxies:
            reason = "a proxy (server.trusted_proxies) lets other hosts in"
        elif runs_host is not None and not is_loopback(runs_host):
            reason = f"runs.listen_host = {runs_host!r} lets other hosts in"
        elif workspaces > 1:
            reason = f"there are {workspaces} workspaces"
        elif as_root and self.is_open:
            reason = "the daemon runs as root and asks none of this host's users who they are"
            more = 'set server.auth_string = "user:password" or auth.mode = "key", run the daemon as another user, '
        else:
            return None
        return (
            f"processes are not isolated from this host or from each other, and {reason}: {more}set process.trusted = true if everybody who may "
            "start a run may do what the daemon's user may do, or use a container engine"
        )


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether only this host reaches that address. It is asked with each request."""
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
        raise wrong(f"runs.ca_bundle: {path} can't be read: {error.strerror or error}") from None
    if trusted is None or not trusted.cert_store_stats()["x509"]:
        raise wrong(
            f"runs.ca_bundle: {path} holds no certificate, or a damaged one; allowed: a PEM file with one -----BEGIN CERTIFICATE----- block or more"
        )
    return content
