"""Who is woken by an event or a line: those whose filter may admit it, and nobody else; and nothing is missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd import ids
from managedd.api.interests import of_events, of_logs
from managedd.model.events import Event
from managedd.model.logs import LogRecord
from managedd.store import events, logs
from managedd.wire.filters.events import EventFilter
from managedd.wire.filters.logs import LogFilter

if TYPE_CHECKING:
    from managedd.api.context import Services
    from managedd.api.news import Follower
    from managedd.store.database import Tx

pytestmark = pytest.mark.anyio

HERE, ELSEWHERE = ids.DEFAULT_WORKSPACE_ID, "other"


def stored(tx: Tx, *names: str, resource: str = "thing.1") -> None:
    made = [
        Event(id=ids.new_id(), occurred_us=tx.now, event=name, resource={"prefect.resource.id": resource})
        for name in names
    ]
    events.insert(tx, made)


async def store(services: Services, *names: str, resource: str = "thing.1") -> None:
    await services.db.write(lambda tx: stored(tx, *names, resource=resource), workspace=HERE)


async def woken(follower: Follower[Any], cursor: int = 0, seconds: float = 5) -> int | None:
    """Behind which position it has to read; None: it was not woken."""
    with anyio.move_on_after(seconds):
        return await follower.wait(cursor)
    return None


async def head(services: Services) -> int:
    return await services.db.read(events.head)


def wants(**parts: object) -> EventFilter:
    return EventFilter.model_validate(parts)


async def test_each_is_woken_by_what_may_be_its_own(services: Services) -> None:
    news = services.event_news
    cancelling = of_events(HERE, wants(event={"name": ["run.Cancelling"]}))
    starting = of_events(HERE, wants(event={"prefix": ["pool."]}))
    about = of_events(HERE, wants(resource={"id": ["thing.2"]}))
    elsewhere = of_events(ELSEWHERE, wants())
    with (
        news.following(cancelling) as first,
        news.following(starting) as second,
        news.following(about) as third,
        news.following(of_events(HERE, wants())) as everything,
        news.following(elsewhere) as stranger,
    ):
        for follower in (first, second, third, everything, stranger):
            await follower.opened()
        before = await head(services)
        await store(services, "run.Running", "run.Cancelling", "pool.ready")
        assert await woken(everything) == before
        assert await woken(first) == before + 1
        assert await woken(second) == before + 2
        await store(services, "run.Running", resource="thing.2")
        assert await woken(third) == before + 3
        assert await woken(stranger, seconds=0.05) is None
        assert await woken(first, seconds=0.05) is None


async def test_what_comes_while_it_reads_wakes_it_again(services: Services) -> None:
    news = services.event_news
    with news.following(of_events(HERE, wants(event={"name": ["a"]}))) as follower:
        await follower.opened()
        before = await head(services)
        for number in range(3):
            await store(services, "b", "a")
            assert await woken(follower, cursor=before + 2 * number) == before + 2 * number + 1
        # It has read further than where the first news lay.
        await store(services, "a")
        assert await woken(follower, cursor=before + 100) == before + 100


async def test_more_than_one_page_at_once_is_looked_at(services: Services) -> None:
    news = services.event_news
    with news.following(of_events(HERE, wants(event={"name": ["last"]}))) as follower:
        await follower.opened()
        before = await head(services)
        many = ["other"] * (2 * events.GLIMPSED)
        await store(services, *many, "last")
        assert await woken(follower) == before + len(many)


async def test_whoever_comes_after_a_time_without_followers_misses_nothing(services: Services) -> None:
    news = services.event_news
    for _ in range(2):
        with news.following(of_events(HERE, wants(event={"name": ["a"]}))) as follower:
            await follower.opened()
            before = await head(services)
            await store(services, "a")
            # What lies before may wake it too, and is read by nobody.
            assert await woken(follower, cursor=before) == before
        await store(services, "a", "b")


# --- log lines ---------------------------------------------------------------------------------------------------------


RUN, OTHER_RUN = ids.new_id(), ids.new_id()


async def print_lines(services: Services, *runs: str | None, workspace: str = HERE) -> None:
    await services.logs.write(
        lambda tx: logs.append(tx, [LogRecord("flow", 20, "said", tx.now, run) for run in runs]), workspace=workspace
    )


async def test_each_is_woken_by_lines_of_its_runs(services: Services) -> None:
    news = services.log_news
    with (
        news.following(of_logs(HERE, lines(flow_run_id={"any_": [RUN]}))) as one,
        news.following(of_logs(HERE, lines(flow_run_id={"any_": [RUN, OTHER_RUN]}, level={"ge_": 30}))) as two,
        news.following(of_logs(HERE, lines())) as everything,
        news.following(
            of_logs(HERE, lines(flow_run_id={"any_": [RUN]}, level={"ge_": 10}, operator="or_"))
        ) as any_part,
        news.following(of_logs(HERE, lines(flow_run_id={"any_": []}))) as nothing,
        news.following(of_logs(ELSEWHERE, lines(flow_run_id={"any_": [RUN]}))) as stranger,
    ):
        for follower in (one, two, everything, any_part, nothing, stranger):
            await follower.opened()
        before = await services.logs.read(logs.head)
        await print_lines(services, None, OTHER_RUN, OTHER_RUN, RUN, RUN)
        assert await woken(one) == before + 3
        assert await woken(two) == before + 1
        assert await woken(everything) == before
        assert await woken(any_part) == before
        await print_lines(services, OTHER_RUN)
        assert await woken(one, seconds=0.05) is None
        assert await woken(nothing, seconds=0.05) is None
        assert await woken(stranger, seconds=0.05) is None


async def test_whoever_is_told_of_several_runs_reads_from_the_first_line(services: Services) -> None:
    # The run that has a line already is told of before the one that is new, though it prints after it.
    await print_lines(services, RUN)
    news = services.log_news
    with (
        news.following(of_logs(HERE, lines(flow_run_id={"any_": [RUN, OTHER_RUN]}))) as both,
        news.following(of_logs(HERE, lines())) as everything,
    ):
        await both.opened()
        before = await services.logs.read(logs.head)
        await print_lines(services, OTHER_RUN, OTHER_RUN, RUN, None)
        assert await woken(both) == before
        assert await woken(everything) == before


async def test_news_of_an_earlier_place_come_after_those_of_a_later_one(services: Services) -> None:
    news = services.log_news
    with news.following(of_logs(HERE, lines())) as follower:
        await follower.opened()
        for position in (7, 3, 9):
            follower.tell(position)
        assert await woken(follower) == 2


async def test_what_a_follower_may_read_was_told_to_all(services: Services) -> None:
    news = services.log_news
    mine = of_logs(HERE, lines(flow_run_id={"any_": [RUN]}))
    with news.following(mine) as follower, news.following(of_logs(HERE, lines())) as everything:
        await follower.opened()
        assert follower.until == await services.logs.read(logs.head)
        for run in (RUN, OTHER_RUN):
            await print_lines(services, run)
            assert await woken(everything, cursor=follower.until) is not None
        assert await woken(follower) is not None
        # The end of what it may read moves on with others' lines, and it sleeps.
        assert follower.until == await services.logs.read(logs.head)
        assert await woken(follower, seconds=0.05) is None


def lines(**parts: object) -> LogFilter:
    return LogFilter.model_validate(parts)
