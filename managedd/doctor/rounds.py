"""All checks, in their order; what needs another comes after it."""

from __future__ import annotations

from typing import Final

from managedd.doctor.checks import data, engine, host, inside, processes
from managedd.doctor.examination import Check

_ENGINE: Final = ("container engine",)
_CONTAINER: Final = ("container",)
CONTAINERS: Final = "docker"
PROCESSES: Final = "process"

ROUNDS: Final = (
    Check(group="data", name="file system", look=data.file_system),
    Check(group="data", name="data directory", look=data.directory),
    Check(group="data", name="daemon", look=data.daemon, seconds=20.0, needs=("data directory",)),
    Check(group="data", name="plans of workspaces", look=data.plans, needs=("daemon",)),
    Check(group="data", name="flush to disk", look=data.flushing, seconds=30.0, needs=("data directory",)),
    Check(group="data", name="disk of the data", look=data.space),
    Check(group="host", name="clients' address", look=data.client_port, needs=("daemon",)),
    Check(group="host", name="certificate", look=host.certificate),
    Check(group="host", name="sqlite", look=host.sqlite),
    Check(group="host", name="time zones", look=host.time_zones),
    Check(group="host", name="open files", look=host.open_files),
    Check(group="engine", name="container engine", look=engine.engine, seconds=40.0),
    Check(group="engine", name="driver", look=engine.driver),
    Check(group="engine", name="effective slots", look=engine.slots),
    Check(group="engine", name="images of plans", look=engine.plans),
    Check(group="engine", name="control groups", look=engine.control_groups, needs=_ENGINE, driver=CONTAINERS),
    Check(group="engine", name="seccomp", look=engine.confinement, needs=_ENGINE, driver=CONTAINERS),
    Check(group="engine", name="engine restarts", look=engine.features, needs=_ENGINE, driver=CONTAINERS),
    Check(group="engine", name="disk of the engine", look=engine.disk, needs=_ENGINE, driver=CONTAINERS),
    Check(group="engine", name="image", look=engine.image, seconds=30.0, needs=_ENGINE, driver=CONTAINERS),
    # Not after `daemon`: without one, what it would do is tried in its place.
    Check(group="runs", name="container", look=inside.container, seconds=120.0, needs=_ENGINE, driver=CONTAINERS),
    Check(group="runs", name="API from a run", look=inside.api, seconds=60.0, needs=_CONTAINER, driver=CONTAINERS),
    Check(group="runs", name="host from a run", look=inside.addresses, needs=_CONTAINER, driver=CONTAINERS),
    Check(group="runs", name="metadata from a run", look=inside.metadata, needs=_CONTAINER, driver=CONTAINERS),
    Check(group="runs", name="between runs", look=inside.neighbours, needs=_CONTAINER, driver=CONTAINERS),
    Check(
        group="runs", name="package index from a run", look=inside.package_index, needs=_CONTAINER, driver=CONTAINERS
    ),
    Check(group="runs", name="limits in a run", look=inside.limits, needs=_CONTAINER, driver=CONTAINERS),
    Check(group="runs", name="clock in a run", look=inside.clock, needs=_CONTAINER, driver=CONTAINERS),
    Check(group="runs", name="isolation", look=processes.isolation, driver=PROCESSES),
    Check(group="runs", name="installer", look=processes.needs, seconds=60.0, driver=PROCESSES),
    Check(group="runs", name="git for runs", look=processes.git, driver=PROCESSES),
    Check(group="runs", name="package index", look=processes.package_index, seconds=60.0, driver=PROCESSES),
    Check(group="runs", name="limits of processes", look=processes.limits, driver=PROCESSES),
    Check(group="runs", name="API from a process", look=processes.api, seconds=30.0, driver=PROCESSES),
    # Knows by now whether runs are processes, which die with the unit unless it says otherwise.
    Check(group="host", name="systemd unit", look=host.unit),
    # The last, so that it has watched the clock the longest.
    Check(group="host", name="clock", look=host.clock),
)
