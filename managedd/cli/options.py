"""The options that every command takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from managedd.config import Loaded, Settings


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which daemon, and which settings."""

    config: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """The TOML file with the settings."""
    data_dir: Annotated[Path | None, Parameter(metavar="DIR")] = None
    """The daemon's data directory (store.data_dir)."""

    def load(self, **overrides: Any) -> Loaded:
        """The settings and where they came from; `overrides` are by key with `__` for the dot. Raises ManagedError(CONFIG)."""
        from managedd.config import load_with_origins

        flags = {name.replace("__", "."): value for name, value in overrides.items()}
        return load_with_origins(self.config, {**flags, "store.data_dir": self.data_dir})

    def settings(self, **overrides: Any) -> Settings:
        """The settings. Raises ManagedError(CONFIG)."""
        return self.load(**overrides).settings


HERE = Where()

Json = Annotated[bool, Parameter(name="--json", negative="")]
"""Print JSON instead of a table."""
