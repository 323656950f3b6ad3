"""Compute minutes: what ended executions have cost stands in a ledger, what runs now is reckoned from its row."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from managedd.model.metering import metered, month_of, ran_us, running_us
from managedd.store import executions, plans

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

    from managedd.model.drivers import ExitStatus
    from managedd.model.executions import Execution
    from managedd.model.metering import Metered, Month, Watched
    from managedd.store.database import Row, Tx

_OWNER = (
    "SELECT r.deployment_id, CASE WHEN d.id IS NULL THEN f.name ELSE f.name || '/' || d.name END AS owner "
    "FROM flow_runs AS r JOIN flows AS f ON f.id = r.flow_id LEFT JOIN deployments AS d ON d.id = r.deployment_id WHERE r.id = ?"
)
_LIVE = (
    "SELECT workspace_id, flow_run_id, started_at, ran_us, seen_at, time_limit_seconds FROM executions INDEXED BY executions_open "
    "WHERE phase NOT IN ('FINALIZED', 'LOST') AND phase <> 'EXITED' AND started_at IS NOT NULL"
)
DELETED = "(deleted)"
SECOND_US = 1_000_000

By = Literal["deployment", "day"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Minutes of a workspace in a month."""

    ended: int
    """Of executions that have ended."""
    running: int
    """Of those under way, until now."""

    @property
    def minutes(self) -> int:
        return self.ended + self.running


def record(
    tx: Tx,
    execution: Execution,
    status: ExitStatus | None,
    zone: tzinfo,
    *,
    watched: Watched | None = None,
    stop_grace_seconds: float = 0.0,
) -> None:
    """The execution, which has ended, is in the ledger: once, however often this is said; one that was never started costs nothing.

    `watched` is what was seen of its end; None: it ended while nobody looked, and what is on record of its time has to do.
    """
    if execution.started_at is None or execution.exited_at is None:
        return
    took_us = ran_for_us(tx, execution, execution.exited_at - execution.started_at, status, watched)
    took_us = min(took_us, _most_us(execution.time_limit_seconds, stop_grace_seconds))
    ended_us = execution.started_at + max(0, took_us)
    if tx.scalar("SELECT EXISTS (SELECT 1 FROM usage WHERE execution_id = ?)", (execution.id,)):
        return
    owner = tx.one(_OWNER, (execution.flow_run_id,))
    parts = metered(execution.started_at, ended_us, zone)
    for part in parts:
        tx.execute(
            "INSERT INTO usage (execution_id, month, day, workspace_id, minutes, flow_run_id, deployment_id, owner) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                execution.id,
                part.month,
                part.day,
                execution.workspace_id,
                part.minutes,
                execution.flow_run_id,
                None if owner is None else owner["deployment_id"],
                DELETED if owner is None else owner["owner"],
            ),
        )
    present = month_of(tx.now, zone).name
    for month in {part.month for part in parts}:
        _note_plan(tx, execution.workspace_id, month, is_over=month != present)


def begin(tx: Tx, workspace_id: str, zone: tzinfo) -> None:
    """A run of the workspace is about to start: the month has the plan under which it does."""
    _note_plan(tx, workspace_id, month_of(tx.now, zone).name, is_over=False)


def _note_plan(tx: Tx, workspace_id: str, month: str, *, is_over: bool) -> None:
    """The month has the workspace's present plan; one that is over only if it has none: the plan may be another one since."""
    plan = plans.of_workspace(tx, workspace_id)
    tx.execute(
        "INSERT INTO usage_months (workspace_id, month, minutes, plan, limit_minutes) VALUES (?, ?, 0, ?, ?) "
        "ON CONFLICT (workspace_id, month) DO UPDATE SET plan = excluded.plan, limit_minutes = excluded.limit_minutes "
        "WHERE plan IS NULL OR (NOT ? AND (plan, limit_minutes) IS NOT (excluded.plan, excluded.limit_minutes))",
        (workspace_id, month, plan.name, plan.compute_minutes, is_over),
    )


def measure(tx: Tx, workspace_id: str, month: Month) -> tuple[str, float | None]:
    """The plan that sizes the workspace's month, and its minutes, None for no limit: the present one, and for a month that is over the one
    under which a run last started or ended in it."""
    if month.ends_us <= tx.now:
        row = tx.one(
            "SELECT plan, limit_minutes FROM usage_months WHERE workspace_id = ? AND month = ? AND plan IS NOT NULL",
            (workspace_id, month.name),
        )
        if row is not None:
            return row["plan"], row["limit_minutes"]
    plan = plans.of_workspace(tx, workspace_id)
    return plan.name, plan.compute_minutes


def ran_for_us(
    tx: Tx, execution: Execution, noticed_us: int, status: ExitStatus | None, watched: Watched | None
) -> int:
    """How long what has ended has run: by its engine's account and by what was seen, or is on record of that; else until it was noticed."""
    account_us = _account_us(status)
    if watched is None:
        noted = executions.noted(tx, execution.id)
        if noted is None:
            return noticed_us if account_us is None else account_us
        watched = noted.watched(tx.now)
    if status is not None and status.host_restarted:
        # Its engine has written down when it came back.
        account_us = None
    return ran_us(account_us, watched)


def _account_us(status: ExitStatus | None) -> int | None:
    """How long it ran, by the engine's clock, which may be another host's: only the difference of its readings is of use."""
    if status is None or status.started_at_us is None or status.finished_at_us is None:
        return None
    account_us = status.finished_at_us - status.started_at_us
    return account_us if account_us >= 0 else None


def used(tx: Tx, workspace_id: str, month: Month, zone: tzinfo) -> Used:
    """What the workspace has used of the month by now."""
    ended = tx.scalar(
        "SELECT minutes FROM usage_months WHERE workspace_id = ? AND month = ?", (workspace_id, month.name)
    )
    running = sum(part.minutes for _, part in _running(tx, workspace_id, month, zone))
    return Used(ended=ended or 0, running=running)


def used_by_all(tx: Tx, month: Month, zone: tzinfo) -> Mapping[str, Used]:
    """The same of every workspace, in one pass over what runs."""
    ended = {
        row["workspace_id"]: row["minutes"]
        for row in tx.all("SELECT workspace_id, minutes FROM usage_months WHERE month = ?", (month.name,))
    }
    running: Counter[str] = Counter()
    for row in tx.all(_LIVE):
        running[row["workspace_id"]] += sum(part.minutes for part in _parts(tx, row, month, zone))
    found = {name: Used(ended=ended.get(name, 0), running=running[name]) for name in {*ended, *running}}
    return defaultdict(lambda: Used(ended=0, running=0), found)


def first_month(tx: Tx, workspace_id: str, zone: tzinfo) -> str:
    """The name of the first month that the workspace has: that in which it was made, or an earlier one in which it has used something."""
    created = tx.scalar("SELECT created FROM workspaces WHERE id = ?", (workspace_id,))
    used_first = tx.scalar("SELECT min(month) FROM usage_months WHERE workspace_id = ?", (workspace_id,))
    made = month_of(tx.now if created is None else created, zone).name
    return made if used_first is None else min(made, used_first)


def broken_down(tx: Tx, workspace_id: str, month: Month, zone: tzinfo, by: By) -> list[tuple[str, int, int]]:
    """(deployment or day, minutes, executions) of the month, what runs now included; those that used most first, days in order."""
    column = "owner" if by == "deployment" else "day"
    minutes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    counted: set[tuple[str, str]] = set()
    for row in tx.all(
        f"SELECT {column} AS name, sum(minutes) AS minutes, count(DISTINCT execution_id) AS executions FROM usage "
        "WHERE workspace_id = ? AND month = ? GROUP BY 1",
        (workspace_id, month.name),
    ):
        minutes[row["name"]], counts[row["name"]] = row["minutes"], row["executions"]
    for flow_run_id, part in _running(tx, workspace_id, month, zone):
        owner = tx.one(_OWNER, (flow_run_id,))
        name = part.day if by == "day" else DELETED if owner is None else owner["owner"]
        minutes[name] += part.minutes
        counts[name] += (name, flow_run_id) not in counted
        counted.add((name, flow_run_id))
    names = sorted(minutes) if by == "day" else sorted(minutes, key=lambda name: (-minutes[name], name))
    return [(name, minutes[name], counts[name]) for name in names]


def warned(tx: Tx, workspace_id: str, month: Month) -> int:
    """The last share of the month's hours that was warned of, in percent; 0: none."""
    return (
        tx.scalar("SELECT warned FROM usage_months WHERE workspace_id = ? AND month = ?", (workspace_id, month.name))
        or 0
    )


def warn(tx: Tx, workspace_id: str, month: Month, percent: int) -> None:
    """That share was warned of."""
    tx.execute(
        "INSERT INTO usage_months (workspace_id, month, minutes, warned) VALUES (?, ?, 0, ?) "
        "ON CONFLICT (workspace_id, month) DO UPDATE SET warned = excluded.warned",
        (workspace_id, month.name, percent),
    )


def forget(tx: Tx, *, before_month: str, limit: int) -> int:
    """At most `limit` entries of months before that one are gone; their sums stay."""
    done = tx.execute(
        "DELETE FROM usage WHERE (execution_id, day) IN (SELECT execution_id, day FROM usage WHERE month < ? LIMIT ?)",
        (before_month, limit),
    )
    return done.rowcount


def _running(tx: Tx, workspace_id: str, month: Month, zone: tzinfo) -> list[tuple[str, Metered]]:
    return [
        (row["flow_run_id"], part)
        for row in tx.all(f"{_LIVE} AND workspace_id = ?", (workspace_id,))
        for part in _parts(tx, row, month, zone)
    ]


def _parts(tx: Tx, row: Row, month: Month, zone: tzinfo) -> list[Metered]:
    ends_us = row["started_at"] + _so_far_us(tx, row)
    return [part for part in metered(row["started_at"], ends_us, zone) if part.month == month.name]


def _so_far_us(tx: Tx, row: Row) -> int:
    so_far_us = running_us(row["started_at"], tx.now, ran_us=row["ran_us"], noted_us=row["seen_at"])
    return min(so_far_us, _most_us(row["time_limit_seconds"], 0))


def _most_us(time_limit_seconds: int | None, grace_seconds: float) -> int:
    """More no run may take."""
    return sys.maxsize if time_limit_seconds is None else round((time_limit_seconds + grace_seconds) * SECOND_US)
