"""The settings: one model per TOML table, the only reader of the file and the environment; everything else gets values.

Order, later wins: defaults here, the TOML file, `MANAGEDD_SECTION__KEY` in the environment, command-line flags. Tables are merged key by
key. A missing file, an unknown key, an unknown variable or a bad value is a ManagedError(CONFIG) that names it and says what is allowed.
TOML has no null and the environment has only text: the word "none" stands for it where a key may be empty.
"""

from __future__ import annotations

from managedd.config.loading import Loaded, load, load_with_origins
from managedd.config.sections import (
    AuthSection,
    HostSection,
    PlanSection,
    RetentionSection,
    RunsSection,
    SchedulerSection,
    SecretsSection,
    ServerSection,
    StoreSection,
)
from managedd.config.settings import Settings, is_loopback, read_ca_bundle
from managedd.config.values import Section

__all__ = [
    "AuthSection",
    "HostSection",
    "Loaded",
    "PlanSection",
    "RetentionSection",
    "RunsSection",
    "SchedulerSection",
    "SecretsSection",
    "Section",
    "ServerSection",
    "Settings",
    "StoreSection",
    "is_loopback",
    "load",
    "load_with_origins",
    "read_ca_bundle",
]
