"""Who is woken by an event: those whose filter may admit it, and nobody else; and nothing is missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from managedd import ids
from managedd.api.event_news import Follower, interest
from managedd.model.events import Event
from managedd.store import events
from managedd.wire.filters.events import EventFilter

if TYPE_CHECKING:
    from managedd.api.context import Services
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


async def woken(follower: Follower, cursor: int = 0, seconds: float = 5) -> int | None:
    """Behind which position it has to read; None: it was not woken."""
    with anyio.move_on_after(seconds):
        return await follower.wait(cursor)
    return None


async def head(services: Services) -> int:
    return await services.db.read(events.head)


def wants(**parts: object) -> EventFilter:
    return EventFilter.model_validate(parts)


async def test_each_is_woken_by_what_may_be_its_own(services: Services) -> None:
    news = services.news
    cancelling = interest(HERE, wants(event={"name": ["run.Cancelling"]}))
    starting = interest(HERE, wants(event={"prefix": ["pool."]}))
    about = interest(HERE, wants(resource={"id": ["thing.2"]}))
    elsewhere = interest(ELSEWHERE, wants())
    with (
        news.following(cancelling) as first,
        news.following(starting) as second,
        news.following(about) as third,
        news.following(interest(HERE, wants())) as everything,
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
    news = services.news
    with news.following(interest(HERE, wants(event={"name": ["a"]}))) as follower:
        await follower.opened()
        before = await head(services)
        for number in range(3):
            await store(services, "b", "a")
            assert await woken(follower, cursor=before + 2 * number) == before + 2 * number + 1
        # It has read further than where the first news lay.
        await store(services, "a")
        assert await woken(follower, cursor=before + 100) == before + 100


async def test_more_than_one_page_at_once_is_looked_at(services: Services) -> None:
    news = services.news
    with news.following(interest(HERE, wants(event={"name": ["last"]}))) as follower:
        await follower.opened()
        before = await head(services)
        many = ["other"] * (2 * events.GLIMPSED)
        await store(services, *many, "last")
        assert await woken(follower) == before + len(many)


async def test_whoever_comes_after_a_time_without_followers_misses_nothing(services: Services) -> None:
    news = services.news
    for _ in range(2):
        with news.following(interest(HERE, wants(event={"name": ["a"]}))) as follower:
            await follower.opened()
            before = await head(services)
            await store(services, "a")
            # What lies before may wake it too, and is read by nobody.
            assert await woken(follower, cursor=before) == before
        await store(services, "a", "b")
