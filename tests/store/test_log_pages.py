"""Pages of one run's log: behind any line, over others' lines, in messages of a bounded size, and news of several runs in one walk."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from managedd import ids
from managedd.clock import iso
from managedd.model.logs import LogRecord
from managedd.store import log_pages, logs, positions
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from managedd.store.log_pages import Batch, Page
    from managedd.store.transaction import Tx

BASE_US = 1_795_000_000_000_000
RUN, RUN_2 = ids.new_id(), ids.new_id()


@pytest.fixture
def store() -> Iterator[SyncStore]:
    with closing(store_of_lines()) as made:
        yield made


def store_of_lines() -> SyncStore:
    return SyncStore("managedd.store.migrations.logs")


def line(number: int, **changes: Any) -> LogRecord:
    values = {
        "name": "n",
        "level": 20,
        "message": f"line {number}",
        "timestamp_us": BASE_US + number,
        "flow_run_id": RUN,
    }
    return LogRecord(**{**values, **changes})


def append(store: SyncStore, *records: LogRecord, workspace: str = ids.DEFAULT_WORKSPACE_ID) -> None:
    store.write(lambda tx: logs.append(tx, records), workspace)


def page(store: SyncStore, cursor: int, **options: Any) -> Page:
    return store.read(lambda tx: log_pages.page_after(tx, RUN, cursor, **options))


def objects(batches: Iterable[Batch]) -> list[dict[str, Any]]:
    return [orjson.loads(text) for batch in batches for text in batch.text.split(b"\n")]


def messages(batches: Iterable[Batch]) -> list[str]:
    return [one["log"]["message"] for one in objects(batches)]


def key_of(store: SyncStore, cursor: str) -> int:
    key = store.read(lambda tx: positions.of(tx, "logs").position(cursor))
    assert key is not None
    return key


def start(store: SyncStore, lines: int | None, run: str = RUN) -> int:
    return store.read(lambda tx: log_pages.before_last(tx, run, lines))


def test_a_reader_resumes_behind_any_line(store: SyncStore) -> None:
    append(store, *(line(n, flow_run_id=RUN if n % 2 else RUN_2) for n in range(10)))
    whole = page(store, start(store, None))
    assert messages(whole.batches) == [f"line {n}" for n in (1, 3, 5, 7, 9)]
    assert (whole.cursor, whole.more) == (10, False)
    for number, one in enumerate(objects(whole.batches)):
        assert (
            messages(page(store, key_of(store, one["cursor"])).batches)
            == [f"line {n}" for n in (1, 3, 5, 7, 9)][number + 1 :]
        )


def test_a_reader_begins_with_the_last_lines_or_at_a_time(store: SyncStore) -> None:
    append(store, *(line(n, flow_run_id=RUN if n % 2 else RUN_2) for n in range(10)))
    assert messages(page(store, start(store, 2)).batches) == ["line 7", "line 9"]
    assert page(store, start(store, 0)).batches == []
    assert start(store, 99) == start(store, None)
    assert start(store, 5, ids.new_id()) == 10
    since = store.read(lambda tx: log_pages.before_time(tx, RUN, BASE_US + 4))
    assert messages(page(store, since).batches) == ["line 5", "line 7", "line 9"]
    assert store.read(lambda tx: log_pages.before_time(tx, RUN, BASE_US + 10)) == 10


@pytest.mark.parametrize("lines", [1, 3, 5, 7, 99])
def test_the_last_lines_are_those_that_came_last_also_after_a_clock_was_set_back(store: SyncStore, lines: int) -> None:
    append(store, *(line(n) for n in range(5)))
    append(store, *(line(n, timestamp_us=BASE_US - 1_000 + n) for n in range(5, 10)), line(0, flow_run_id=RUN_2))
    assert messages(page(store, start(store, lines)).batches) == [f"line {n}" for n in range(10)][-lines:]


def test_lines_that_another_workspace_wrote_under_the_runs_id_move_no_beginning(store: SyncStore) -> None:
    append(store, *(line(n, timestamp_us=BASE_US + 10**6) for n in range(20)), workspace=OTHER_WORKSPACE)
    append(store, *(line(n) for n in range(10)))
    append(store, *(line(n, timestamp_us=BASE_US + 10**6) for n in range(20)), workspace=OTHER_WORKSPACE)
    assert messages(page(store, start(store, 2)).batches) == ["line 8", "line 9"]
    assert (start(store, None), start(store, 99)) == (20, 20)

    def since(number: int) -> int:
        return store.read(lambda tx: log_pages.before_time(tx, RUN, BASE_US + number))

    assert messages(page(store, since(7)).batches) == ["line 7", "line 8", "line 9"]
    assert since(-1) == 20
    assert since(11) == 50


@pytest.mark.parametrize("behind", range(4))
def test_a_batch_gives_what_is_behind_a_cursor(store: SyncStore, behind: int) -> None:
    append(store, *(line(n) for n in range(3)))
    (batch,) = page(store, 0).batches
    rest = batch.after(behind)
    assert [orjson.loads(text)["log"]["message"] for text in rest.split(b"\n") if text] == [
        f"line {n}" for n in range(behind, 3)
    ]


def test_messages_and_pages_are_bounded_by_their_size(store: SyncStore) -> None:
    texts = [f"{n} " + "x" * 9_000 for n in range(100)] + ["y" * 200_000]
    append(store, *(line(n, message=text) for n, text in enumerate(texts)))
    got: list[str] = []
    cursor, more, pages = 0, True, 0
    while more:
        found = page(store, cursor)
        cursor, more, pages = found.cursor, found.more, pages + 1
        for batch in found.batches:
            assert len(batch.text) <= log_pages.BATCH_BYTES or len(batch.keys) == 1
            assert batch.ends[-1] == len(batch.text)
        assert sum(len(batch.text) for batch in found.batches) < log_pages.PAGE_BYTES + 210_000
        got += messages(found.batches)
    assert got == texts
    assert pages > 3


def test_a_run_is_read_in_pages_of_its_own_lines(store: SyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_pages, "PAGE_LINES", 7)
    for n in range(30):
        append(store, *(line(n, flow_run_id=RUN_2) for _ in range(11)), line(n))
        append(store, line(n, message="of another workspace"), workspace=OTHER_WORKSPACE)
    cursor, more, pages = 0, True, 0
    got: list[str] = []
    while more:
        found = page(store, cursor)
        for one in objects(found.batches):
            # Whoever resumes behind a line gets what follows it.
            assert one["cursor"] == one["log"]["id"]
            assert key_of(store, one["cursor"]) > cursor
            cursor = key_of(store, one["cursor"])
        cursor, more, pages = found.cursor, found.more, pages + 1
        got += messages(found.batches)
    assert got == [f"line {n}" for n in range(30)]
    assert cursor == 30 * 13
    assert pages == 5
    assert messages(page(store, 0, until=26).batches) == ["line 0", "line 1"]


BURST_LINES, KEYS_BETWEEN = 100, 25_000


def printed_in_bursts(store: SyncStore, bursts: int) -> None:
    """The run has so many times `BURST_LINES` lines, with room for others' keys between."""
    append(store, line(0))
    copied = (
        "INSERT INTO logs (id, workspace, flow_run, name, level, timestamp, message) "
        "SELECT ?, workspace, flow_run, name, level, ?, message FROM logs WHERE id = 1"
    )
    keys = [n * KEYS_BETWEEN + m for n in range(bursts) for m in range(BURST_LINES)][2:]
    store.write(lambda tx: tx.executemany(copied, ((key, BASE_US + key) for key in keys)))


def read_all(tx: Tx) -> None:
    cursor, more = 0, True
    while more:
        found = log_pages.page_after(tx, RUN, cursor)
        cursor, more = found.cursor, found.more


def test_reading_a_run_that_printed_in_bursts_takes_work_in_proportion_to_its_lines() -> None:
    with closing(store_of_lines()) as short, closing(store_of_lines()) as long:
        printed_in_bursts(short, 20)
        printed_in_bursts(long, 80)
        assert long.steps(read_all) < 5 * short.steps(read_all)


@pytest.mark.parametrize("lines", [None, 10])
def test_where_a_run_begins_or_its_last_lines_do_is_found_however_long_it_is(lines: int | None) -> None:
    with closing(store_of_lines()) as short, closing(store_of_lines()) as long:
        printed_in_bursts(short, 2)
        printed_in_bursts(long, 50)
        assert start(long, lines) == (0 if lines is None else 49 * KEYS_BETWEEN + BURST_LINES - 11)
        asked = [store.steps(lambda tx: log_pages.before_last(tx, RUN, lines)) for store in (short, long)]
        assert asked[0] == asked[1]


def test_a_file_has_lines_of_text_or_objects(store: SyncStore) -> None:
    append(store, line(0, level=30, message="two\nlines"), line(1, level=7))
    (text,) = page(store, 0, form="text").batches
    first, second = iso(BASE_US), iso(BASE_US + 1)
    assert text.text.decode() == f"{first} WARNING  n | two\n    lines\n{second} 7        n | line 1"
    (rows,) = page(store, 0, form="jsonl").batches
    assert [(one["message"], one["level"]) for one in objects([rows])] == [("two\nlines", 30), ("line 1", 7)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"])
def test_no_part_of_a_line_of_text_looks_like_a_line(store: SyncStore, end: str) -> None:
    forged = f"{iso(BASE_US)} CRITICAL managedd | Container killed: out of memory"
    append(store, line(0, message=f"hello{end}{forged}"), line(1, name=f"n{end}{forged}"))
    (text,) = page(store, 0, form="text").batches
    shown = text.text.decode().splitlines()
    assert [one.endswith("killed: out of memory") or "line 1" in one for one in shown] == [False, True, True]
    assert shown[1] == f"    {forged}"
    assert shown[2].startswith(f"{iso(BASE_US + 1)} INFO     n\N{REPLACEMENT CHARACTER}")


def test_a_file_ends_where_the_log_was_when_it_began(store: SyncStore) -> None:
    append(store, *(line(n) for n in range(5)))
    found = page(store, 0, until=3)
    assert messages(found.batches) == ["line 0", "line 1", "line 2"]
    assert (found.cursor, found.more) == (3, False)


def test_news_of_several_runs_come_in_one_walk_and_of_no_other(
    store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_pages, "NEWS_LINES", 7)
    foreign = ids.new_id()
    for n in range(10):
        append(store, line(n), line(n, flow_run_id=RUN_2), line(n, flow_run_id=foreign))
        append(store, line(n, message="of another workspace"), workspace=OTHER_WORKSPACE)
    keys = [(ids.DEFAULT_WORKSPACE_ID, run) for run in (RUN, RUN_2)]
    got: dict[Any, list[str]] = {key: [] for key in keys}
    cursor, more = 0, True
    while more:
        news = store.read(lambda tx, at=cursor: log_pages.news_after(tx, keys, at))
        cursor, more = news.cursor, news.more
        for key, batches in news.batches.items():
            got[key] += messages(batches)
    assert got == {key: [f"line {n}" for n in range(10)] for key in keys}
    assert cursor == 40
