"""The janitor: what is over its time goes, whatever is needed stays, and nobody waits long for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from managedd import ids
from managedd.clock import from_us
from managedd.config import RetentionSection
from managedd.engine.janitor import DAY_US, Janitor
from managedd.model.access import Role
from managedd.model.executions import Phase
from managedd.model.logs import LogCursor, LogRecord
from managedd.model.states import StateType
from managedd.store import audit, database, executions, flow_runs, keys, logs, retention, rows, web_sessions
from managedd.store.resources import TASK_RUN

if TYPE_CHECKING:
    from tests.engine.world import World

pytestmark = pytest.mark.anyio


def janitor(world: World, **settings: Any) -> Janitor:
    return Janitor(world.db, world.logs, world.clock, RetentionSection(**settings))


async def count(world: World, table: str, *, of: str = "state") -> int:
    db = world.db if of == "state" else world.logs
    return int(await db.read(lambda tx: tx.scalar(f"SELECT count(*) FROM {table}")))


async def say(world: World, run_id: str | None, lines: int = 3) -> None:
    now_us = world.clock.now_us()
    records = [
        LogRecord(name="x", level=20, message=str(number), timestamp_us=now_us, flow_run_id=run_id)
        for number in range(lines)
    ]
    await world.logs.write(lambda tx: logs.append(tx, records), workspace=world.workspace)


async def ended(world: World, type_: StateType = StateType.COMPLETED) -> str:
    """A run that has ended, with log lines, task runs and a finished execution."""
    execution = await world.claimed()
    run_id = execution.flow_run_id

    def body(tx: Any) -> None:
        for number in range(3):
            rows.insert(tx, TASK_RUN, {"name": "t", "flow_run_id": run_id, "task_key": "k", "dynamic_key": str(number)})
        executions.advance(tx, execution.id, (Phase.CLAIMED,), Phase.EXITED)
        executions.advance(tx, execution.id, (Phase.EXITED,), Phase.FINALIZED)

    await world.write(body)
    await world.propose(run_id, type_)
    await say(world, run_id)
    return run_id


async def test_what_is_gone_takes_no_room_on_the_disk(still: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much it was, at once and not a few pages a day."""
    monkeypatch.setattr(database, "_VACUUM_PAGES", 20)
    monkeypatch.setattr(database, "_SHRINK_PAGES", 20)
    run_id = await ended(still)
    await say(still, run_id, lines=10_000)
    still.clock.advance(2 * 86_400)  # type: ignore[attr-defined]
    await still.logs.checkpoint()
    full = await still.logs.size_bytes()
    await janitor(still, runs_days=1).once()
    assert await still.log_lines(run_id) == []
    assert await still.logs.size_bytes() < full / 5


@pytest.mark.parametrize("type_", [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED])
async def test_an_old_run_goes_with_all_that_is_its_own(still: World, type_: StateType) -> None:
    await ended(still, type_)
    still.clock.advance(5 * 86_400)  # type: ignore[attr-defined]
    kept = await ended(still)
    still.clock.advance(5 * 86_400 + 1)  # type: ignore[attr-defined]
    await janitor(still, runs_days=10).once()
    left = await still.read(lambda tx: [row[0] for row in tx.all("SELECT id FROM flow_runs")])
    assert left == [kept]
    assert await count(still, "task_runs") == 3
    assert await count(still, "logs", of="logs") == 3
    assert await count(still, "flow_run_states") == len(await still.history(kept))
    # Compute time is counted from them.
    assert await count(still, "executions") == 2
    assert await still.db.integrity() == [] and await still.logs.integrity() == []


async def test_what_has_not_ended_stays_however_old(still: World) -> None:
    waiting, claimed = await still.run(), await still.claimed()
    open_ = await still.claimed()
    await still.propose(open_.flow_run_id, StateType.COMPLETED)
    still.clock.advance(1000 * 86_400)  # type: ignore[attr-defined]
    await janitor(still, runs_days=1).once()
    left = await still.read(lambda tx: {row[0] for row in tx.all("SELECT id FROM flow_runs")})
    assert left == {waiting, claimed.flow_run_id, open_.flow_run_id}


async def test_nothing_goes_when_runs_are_kept_for_ever(still: World) -> None:
    await ended(still)
    await say(still, None)
    still.clock.advance(10_000 * 86_400)  # type: ignore[attr-defined]
    await janitor(still, runs_days=None).once()
    assert (await count(still, "flow_runs"), await count(still, "logs", of="logs")) == (1, 6)


async def test_a_run_with_many_task_runs_goes_in_steps(still: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    await ended(still)
    for _ in range(4):
        await ended(still)
    still.clock.advance(2 * 86_400)  # type: ignore[attr-defined]
    await janitor(still, runs_days=1).once()
    assert await count(still, "flow_runs") == await count(still, "task_runs") == 0
    assert await count(still, "logs", of="logs") == 0


async def test_events_go_by_their_own_time(still: World) -> None:
    await still.run()
    before = await count(still, "events")
    assert before
    still.clock.advance(7 * 86_400 + 1)  # type: ignore[attr-defined]
    new = await still.run()
    await janitor(still, events_days=7).once()
    assert await count(still, "events") == len(await still.history(new))


async def test_what_a_crash_left_between_the_two_files_goes(still: World) -> None:
    """Lines of a run that is gone, and cursors of executions that ended; those of a live one stay."""
    gone, live = await ended(still), await still.claimed()
    await still.write(lambda tx: flow_runs.delete(tx, gone))
    await say(still, live.flow_run_id)

    def cursors(tx: Any) -> None:
        logs.set_cursor(tx, live.id, LogCursor(1, 1))
        for _ in range(3):
            logs.set_cursor(tx, ids.new_id(), LogCursor(1, 1))

    await still.logs.write(cursors)
    await janitor(still).once()
    assert await still.log_lines(gone) == [] and len(await still.log_lines(live.flow_run_id)) == 3
    left = await still.logs.read(lambda tx: [row[0] for row in tx.all("SELECT execution_id FROM log_cursors")])
    assert left == [live.id]


async def test_a_log_goes_before_its_run_and_says_so(still: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    old, live = await ended(still), await still.claimed()
    await say(still, live.flow_run_id)
    await say(still, None)
    still.clock.advance(2 * 86_400)  # type: ignore[attr-defined]
    new = await ended(still)
    clean = janitor(still, runs_days=None, logs_days=1.5)
    await clean.once()
    told = "This run's log was removed 1.5 days after the run had ended (retention.logs_days)."
    assert await still.log_lines(old) == [told]
    assert len(await still.log_lines(new)) == len(await still.log_lines(live.flow_run_id)) == 3
    assert await count(still, "logs WHERE flow_run IS NULL", of="logs") == 0
    assert await count(still, "flow_runs") == 3
    newest = await still.logs.read(logs.head)
    await clean.once()
    # Nothing was left to do: the line that tells it is not written again.
    assert await still.logs.read(logs.head) == newest
    # What comes late goes as well, and the line stands for both.
    await say(still, old, 5)
    assert len(await still.log_lines(old)) == 6
    await clean.once()
    assert await still.log_lines(old) == [told]
    await still.write(lambda tx: flow_runs.delete(tx, old))
    await clean.once()
    assert await still.log_lines(old) == []
    assert await count(still, "log_runs", of="logs") == 2


async def test_a_log_stays_as_long_as_its_run_where_nothing_else_is_said(still: World) -> None:
    run = await ended(still)
    still.clock.advance(80 * 86_400)  # type: ignore[attr-defined]
    await janitor(still).once()
    assert len(await still.log_lines(run)) == 3


async def test_a_line_about_a_removed_log_is_its_workspaces_own(still: World) -> None:
    run = await ended(still)
    still.clock.advance(2 * 86_400)  # type: ignore[attr-defined]
    await janitor(still, logs_days=1).once()
    owners = await still.logs.read(
        lambda tx: [tuple(row) for row in tx.all("SELECT workspace_id, flow_run_id FROM log_lines")]
    )
    assert owners == [(still.workspace, run)]


async def test_runs_that_have_lines_are_looked_at_by_the_step(still: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: a question to each file for a step of them, and their lines are not read."""
    monkeypatch.setattr(retention, "STEP", 2)
    runs = [await ended(still) for _ in range(5)]
    for run_id in runs[:4]:
        await still.write(lambda tx, run_id=run_id: flow_runs.delete(tx, run_id))  # type: ignore[misc]
    asked = []

    def gone_of(tx: Any, run_ids: list[str]) -> list[str]:
        asked.append(run_ids)
        return found(tx, run_ids)

    found = retention.gone_of
    monkeypatch.setattr(retention, "gone_of", gone_of)
    await janitor(still)._orphaned_logs()
    assert asked == [sorted(runs)[:2], sorted(runs)[2:4], sorted(runs)[4:]]
    assert await count(still, "logs", of="logs") == len(await still.log_lines(runs[4])) == 3

    def steps(tx: Any) -> list[str]:
        class Ear:
            def all(self, sql: str, params: Any) -> list[Any]:
                return [[row["detail"]] for row in tx.all(f"EXPLAIN QUERY PLAN {sql}", params)]

        return retention.logged_runs_after(Ear(), "")  # type: ignore[arg-type]

    plan = await still.logs.read(steps)
    assert [step for step in plan if "logs" in step and "USING COVERING INDEX" not in step and "SEARCH" in step] == []
    assert not any(step.startswith("SCAN logs") for step in plan), plan


async def test_lines_outside_any_run_go_by_age(still: World) -> None:
    await say(still, None, 700)
    still.clock.advance(2 * 86_400)  # type: ignore[attr-defined]
    await say(still, None, 2)
    await janitor(still, runs_days=1).once()
    assert await count(still, "logs", of="logs") == 2


async def test_expired_leases_go(still: World) -> None:
    now = still.clock.now_us()
    await still.write(
        lambda tx: tx.executemany(
            "INSERT INTO concurrency_leases (id, workspace_id, expires_at, created) VALUES (?, ?, ?, 0)",
            [("old", still.workspace, now - 1), ("held", still.workspace, now + DAY_US)],
        )
    )
    await janitor(still).once()
    assert await still.read(lambda tx: tx.scalar("SELECT group_concat(id) FROM concurrency_leases")) == "held"


async def test_old_runs_are_found_by_index(still: World) -> None:
    asked: list[str] = []

    class Ear:
        def all(self, sql: str, params: Any = ()) -> list[Any]:
            asked.append(sql)
            return []

    retention.ended_runs_before(Ear(), 5)  # type: ignore[arg-type]
    plan = await still.read(lambda tx: [row["detail"] for row in tx.all(f"EXPLAIN QUERY PLAN {asked[0]}", (5, 10))])
    assert any("flow_runs_ended (workspace_id=? AND end_time<?)" in step for step in plan), plan


async def test_what_a_run_used_is_forgotten_by_and_by_and_the_sum_of_its_month_is_not(still: World) -> None:
    now_us = still.clock.now_us()
    ledger = "INSERT INTO usage (execution_id, month, day, workspace_id, minutes, flow_run_id, owner) VALUES (?, ?, ?, ?, 5, 'r', 'f')"
    for month in ("2025-12", "2026-01", "2026-03"):
        await still.write(lambda tx, m=month: tx.execute(ledger, (m, m, f"{m}-01", still.workspace)))
    assert from_us(now_us).month == 3
    await janitor(still, usage_days=40).once()
    left = await still.read(lambda tx: [row[0] for row in tx.all("SELECT month FROM usage ORDER BY 1")])
    sums = await still.read(
        lambda tx: [tuple(row) for row in tx.all("SELECT month, minutes FROM usage_months ORDER BY 1")]
    )
    assert left == ["2026-01", "2026-03"]
    assert sums == [("2025-12", 5), ("2026-01", 5), ("2026-03", 5)]


async def test_the_audit_log_goes_by_age_and_by_number(world: World) -> None:
    entry = audit.Entry(workspace_id=None, actor="operator", operation="POST /flows/", status=201)
    await world.db.write(lambda tx: audit.add(tx, [entry] * 600))
    await janitor(world).once()
    assert await count(world, "audit") == 600
    await world.db.write(lambda tx: tx.execute("UPDATE audit SET at = at - ?", (3 * DAY_US,)).close())
    await world.db.write(lambda tx: audit.add(tx, [entry] * 1100))
    await janitor(world, audit_days=2).once()
    assert await count(world, "audit") == 1100
    await janitor(world, audit_rows=1000).once()
    assert await count(world, "audit") == 1000


async def test_sessions_of_browsers_go_when_they_have_ended(world: World) -> None:
    now_us = world.clock.now_us()

    def body(tx: Any) -> None:
        for name, expires_us in {"over": now_us - 1, "lives": now_us + DAY_US}.items():
            web_sessions.begin(tx, token_hash=name, key_id=None, auth_hash="hash", expires_us=expires_us)

    await world.write(body)
    await janitor(world).once()
    assert await world.read(lambda tx: [row[0] for row in tx.all("SELECT token_hash FROM web_sessions")]) == ["lives"]


async def test_keys_that_ended_long_ago_go_and_no_other(world: World) -> None:
    now_us = world.clock.now_us()
    long_ago, lately = now_us - 3 * DAY_US, now_us - DAY_US

    def body(tx: Any) -> None:
        ends = {
            "revoked long ago": (long_ago, None),
            "revoked before it would have ended": (long_ago, now_us + DAY_US),
            "expired long ago": (None, long_ago),
            "revoked lately": (lately, None),
            "expired lately": (None, lately),
            "lives": (None, None),
            "lives and will end": (None, now_us + DAY_US),
        }
        for name, (revoked, expires) in ends.items():
            made = keys.create(
                tx, workspace_id=tx.workspace, name=name, role=Role.VIEWER, key_hash=name, hint="", expires_us=expires
            )
            tx.execute("UPDATE keys SET revoked = ? WHERE id = ?", (revoked, made.id))

    await world.write(body)
    await janitor(world, audit_days=2).once()
    left = await world.read(lambda tx: keys.every(tx, tx.workspace, 100))
    assert {key.name for key in left} == {"revoked lately", "expired lately", "lives", "lives and will end"}
