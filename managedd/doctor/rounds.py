"""All checks, in their order; what needs another comes after it."""

from __future__ import annotations

from typing import Final

from managedd.doctor.checks import data, engine, host, inside
from managedd.doctor.examination import Check

_ENGINE: Final = ("container engine",)
_CONTAINER: Final = ("container",)

ROUNDS: Final = (
    Check(group="data", name="file system", look=data.file_system),
    Check(group="data", name="data directory", look=data.directory),
    Check(group="data", name="daemon", look=data.daemon, seconds=20.0, needs=("data directory",)),
    Check(group="data", name="flush to disk", look=data.flushing, seconds=30.0, needs=("data directory",)),
    Check(group="data", name="disk of the data", look=data.space),
    Check(group="host", name="clients' address", look=data.client_port, needs=("daemon",)),
    Check(group="host", name="sqlite", look=host.sqlite),
    Check(group="host", name="time zones", look=host.time_zones),
    Check(group="host", name="open files", look=host.open_files),
    Check(group="host", name="systemd unit", look=host.unit),
    Check(group="engine", name="container engine", look=engine.engine, seconds=40.0),
    Check(group="engine", name="control groups", look=engine.control_groups, needs=_ENGINE),
    Check(group="engine", name="engine restarts", look=engine.features, needs=_ENGINE),
    Check(group="engine", name="disk of the engine", look=engine.disk, needs=_ENGINE),
    Check(group="engine", name="image", look=engine.image, seconds=30.0, needs=_ENGINE),
    Check(group="engine", name="effective slots", look=engine.slots),
    # Not after `daemon`: without one, what it would do is tried in its place.
    Check(group="runs", name="container", look=inside.container, seconds=120.0, needs=_ENGINE),
    Check(group="runs", name="API from a run", look=inside.api, seconds=60.0, needs=_CONTAINER),
    Check(group="runs", name="host from a run", look=inside.addresses, needs=_CONTAINER),
    Check(group="runs", name="between runs", look=inside.neighbours, needs=_CONTAINER),
    Check(group="runs", name="package index from a run", look=inside.package_index, needs=_CONTAINER),
    Check(group="runs", name="limits in a run", look=inside.limits, needs=_CONTAINER),
    Check(group="runs", name="clock in a run", look=inside.clock, needs=_CONTAINER),
    # The last, so that it has watched the clock the longest.
    Check(group="host", name="clock", look=host.clock),
)
