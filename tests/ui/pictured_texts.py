"""What the pictured workspace's pools, deployments, runs and settings say."""

from __future__ import annotations

import math
from typing import Any, Final

from managedd import __version__
from managedd.model.limits import HostLimits

GIB: Final = 1024**3
VARIABLES_OF_ETL: Final = {"pip_packages": ["pandas>=2.2", "sqlalchemy", "httpx"], "env": {"WAREHOUSE": "orders", "TZ": "UTC"}, "memory_limit": "1Gi"}  # fmt: skip
POOLS: Final = (
    ("etl", "prefect:managed", "What loads and cleans the warehouse.", 8),
    ("training", "prefect:managed", "Long runs at night. Paused while the model is looked at.", 1),
    ("laptops", "process", "Workers of our own.", None),
)
_SCHEMA: Final = {
    "title": "Parameters",
    "type": "object",
    "properties": {
        "day": {"title": "day", "type": "string", "format": "date", "position": 0, "description": "The day whose orders are loaded."},
        "rows": {"title": "rows", "type": "integer", "default": 50000, "position": 1, "description": "How many rows at a time."},
        "mode": {"title": "mode", "type": "string", "enum": ["append", "replace"], "default": "append", "position": 2},
        "notify": {"title": "notify", "type": "boolean", "default": True, "position": 3},
        "tables": {"title": "tables", "type": "array", "items": {"type": "string"}, "default": ["orders", "refunds"], "position": 4},
    },
    "required": ["day"],
}  # fmt: skip
DEPLOYMENTS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    (
        "load-orders",
        "nightly",
        {
            "work_pool_name": "etl",
            "tags": ["orders", "warehouse"],
            "description": "Loads **yesterday's orders** into the warehouse, then checks the sums.\n\n- it may be run again for a day\n- it takes about three hours",
            "parameters": {"rows": 50_000},
            "parameter_openapi_schema": _SCHEMA,
            "entrypoint": "flows/orders.py:load_orders",
            "version": "1.14.2",
            "job_variables": {"memory_limit": "1Gi"},
            "concurrency_limit": 2,
            "schedules": [
                {"schedule": {"cron": "0 2 * * *", "timezone": "Europe/Berlin"}, "active": True},
                {"schedule": {"rrule": "FREQ=MONTHLY;BYMONTHDAY=1;BYHOUR=6;BYMINUTE=0;BYSECOND=0", "timezone": "UTC"}, "active": False},
            ],
        },
    ),
    ("load-orders", "backfill", {"work_pool_name": "etl", "work_queue_name": "backfill", "tags": ["orders"], "parameter_openapi_schema": _SCHEMA, "enforce_parameter_schema": False}),
    ("refresh-report", "hourly", {"work_pool_name": "etl", "work_queue_name": "urgent", "tags": ["report"], "schedules": [{"schedule": {"interval": 3600.0, "timezone": "UTC"}, "active": True}]}),
    ("train-model", "weekly", {"work_pool_name": "training", "tags": ["gpu"], "schedules": [{"schedule": {"cron": "0 4 * * 1", "timezone": "UTC"}, "active": True}]}),
)  # fmt: skip
KEYS: Final = (("Ann's laptop", "admin", None), ("continuous integration", "developer", 61), ("dashboard in the hall", "viewer", None), ("ticket system", "runner", 6))  # fmt: skip
VARIABLES: Final = (
    ("warehouse_host", "warehouse.example.org", ["warehouse"]),
    ("thresholds", {"missing_share": 0.02, "late_minutes": 45}, ["quality"]),
    ("report_readers", ["ann@example.org", "bo@example.org"], []),
)
FAILED: Final = "ValueError: 3 of 412 stores sent no orders"
TIME: Final = "Time limit reached while the flow was running: the run was stopped after 2 h 0 min; its limit is 2 h 0 min, installation included. Raise the timeout job variable as far as the plan allows, or let it do less."  # fmt: skip
MEMORY: Final = "Out of memory while the flow was running: the memory limit is 1 GiB, the highest use seen was 1 GiB. Raise the memory_limit job variable or use less memory."  # fmt: skip
ASKED: Final = {
    "paused-1-description": "**1,204,886 orders** of 2021 would be written anew. Which part shall it be?",
    "paused-1-schema": {
        "title": "Approval",
        "type": "object",
        "required": ["months"],
        "properties": {
            "months": {"type": "integer", "title": "Months", "description": "How many, from January on."},
            "replace": {"type": "boolean", "title": "Replace what is there", "default": False},
            "note": {"type": "string", "title": "Note", "default": ""},
        },
    },
}
TASKS: Final = (
    ("connect", 12, 3, "COMPLETED"),
    ("extract-1", 16, 340, "COMPLETED"),
    ("extract-2", 16, 455, "COMPLETED"),
    ("extract-3", 18, 290, "FAILED"),
    ("extract-3-again", 320, 410, "COMPLETED"),
    ("clean", 740, 380, "COMPLETED"),
    ("load", 1125, None, "RUNNING"),
    ("check-sums", None, None, "PENDING"),
)
"""Name, seconds after the start, seconds it took, end."""
_ESC: Final = "\x1b["
LOG: Final = (
    (1, "managedd", 20, "Pulling of prefecthq/prefect:3-python3.12 took 3 s"),
    (2, "managedd", 20, "Installing pandas>=2.2, sqlalchemy, httpx"),
    (7, "managedd", 20, "Installed 11 packages in 5 s"),
    (11, "prefect.flow_runs", 20, "Beginning flow run 'orders-again' for flow 'load-orders'"),
    (13, "prefect.task_runs", 10, "Opened a connection to warehouse.example.org"),
    (15, "prefect.task_runs", 20, "connect: Finished in state Completed()"),
    *((16 + n * 9, "orders.extract", 20, f"part {n % 3 + 1}: {n * 4200:,} rows of 412 stores") for n in range(1, 34)),
    (318, "orders.extract", 40, "part 3: the vendor's API answered 503\nTraceback (most recent call last):\n  File \"flows/orders.py\", line 88, in extract\n    answer.raise_for_status()\nhttpx.HTTPStatusError: Server error '503 Service Unavailable'"),
    (319, "prefect.task_runs", 30, "extract-3: retrying in 1 s"),
    (740, "stdout", 20, f"{_ESC}1mcleaning{_ESC}0m {_ESC}32m1,386,014 rows good{_ESC}0m, {_ESC}31m212 thrown away{_ESC}0m"),
    (742, "orders.clean", 30, "3 stores have orders in the future: 0117, 0233, 0390"),
    *((1125 + n * 60, "orders.load", 20, f"loaded {n * 118_000:,} of 1,386,014 rows") for n in range(1, 11)),
)  # fmt: skip
"""Seconds after the start, logger, level, text."""
ARTIFACTS: Final = (
    {"key": "summary", "type": "markdown", "data": "## Orders of 19 November\n\n| part | rows | thrown away |\n|---|---|---|\n| 1 | 462,004 | 71 |\n| 2 | 511,350 | 90 |\n| 3 | 412,660 | 51 |\n\nThree stores have orders **in the future**; they are kept apart."},
    {"key": "slowest-stores", "type": "table", "data": '[{"store": "0117", "city": "Kiel", "seconds": 41.2}, {"store": "0390", "city": "Graz", "seconds": 33.9}, {"store": "0233", "city": "Basel", "seconds": 30.4}]'},
    {"key": "loaded", "type": "progress", "data": 85.0},
    {"key": "dashboard", "type": "link", "data": "[Orders in the dashboard](https://example.org/orders)"},
)  # fmt: skip
_FOUND: Final = (
    ("data", "store", "ok", "both files open, their structure is that of this version", None),
    (
        "data",
        "disk",
        "warning",
        "9% of the disk is free",
        "Make room, or shorten retention.logs_days: below 5% no run starts.",
    ),
    ("host", "clock", "ok", "it differs by 0.02 s", None),
    ("host", "limits of the cgroup", "ok", "memory, processors and processes are held", None),
    ("engine", "Docker", "ok", "26.1.4 answers in 4 ms", None),
    ("engine", "image", "ok", "prefecthq/prefect:3-python3.12 is there", None),
    ("runs", "reaches the API", "ok", "from a container, by the bridge's gateway", None),
    ("runs", "reaches this host", "note", "port 5432 is open for runs by docker.host_allow", None),
)
EXAMINATION: Final = {
    "made": "2026-11-20T15:05:00.000000Z",
    "version": __version__,
    "healthy": True,
    "counts": {"ok": 6, "note": 1, "warning": 1, "problem": 0},
    "findings": [{"group": group, "name": name, "level": level, "seen": seen, "mend": mend, "facts": {}} for group, name, level, seen, mend in _FOUND],
}  # fmt: skip


def facts() -> dict[str, Any]:
    """What the daemon of a host with 16 GiB and 8 processors knows about itself."""
    return {
        "url": "http://127.0.0.1:4200/api",
        "host": HostLimits(memory_bytes=12 * GIB, cpus=8.0, run_memory_bytes=2 * GIB, run_cpus=1.0),
        "engine": lambda: {"driver": "docker", "version": "26.1.4", "problem": None, "detail": {}},
    }


def grown(share: float) -> float:
    """How memory grows that is soon all there is to need; both of 1."""
    return 1 - math.exp(-4 * share)
