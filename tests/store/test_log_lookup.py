"""Looking into one run's log: what is surveyed, found and read is what is there, and no statement walks further than a stride."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from managedd import ids
from managedd.store import log_lookup
from managedd.store.log_lookup import Log, Slice
from tests.store.test_log_pages import RUN, RUN_2, append, line, store_of_lines
from tests.store.test_query_plans import assert_no_scan, plan
from tests.support.sync_store import OTHER_WORKSPACE, SyncStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from managedd.store.log_lookup import Found
    from managedd.store.transaction import Tx

LOG, ERRORS = Log(flow_run_id=RUN), Log(flow_run_id=RUN, level=40)


@pytest.fixture
def store() -> Iterator[SyncStore]:
    with closing(store_of_lines()) as made:
        yield made


@pytest.fixture
def short_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lookup, "STRIDE_LINES", 4)
    monkeypatch.setattr(log_lookup, "STRIDES_AT_ONCE", 2)


def mixed(store: SyncStore, count: int) -> None:
    """Lines of the run between those of others; each fifth is an error."""
    for n in range(count):
        append(store, line(n, level=40 if n % 5 == 0 else 20), line(n, flow_run_id=RUN_2, level=40))
        append(store, line(n, message="of another workspace", level=40), workspace=OTHER_WORKSPACE)


def found(store: SyncStore, text: str | None, log: Log = LOG, **place: int | None) -> Found:
    return store.read(lambda tx: log_lookup.find(tx, log, text, **place))


@pytest.mark.usefixtures("short_strides")
@pytest.mark.parametrize(("log", "of_each"), [(LOG, [4, 4]), (ERRORS, [1, 1])])
def test_a_survey_counts_the_runs_own_lines_stride_by_stride(store: SyncStore, log: Log, of_each: list[int]) -> None:
    mixed(store, 11)
    first = store.read(lambda tx: log_lookup.survey(tx, log, 0))
    assert [each.admitted for each in first.strides] == of_each
    assert first.rest is None
    rest = store.read(lambda tx: log_lookup.survey(tx, log, first.strides[-1].last))
    assert (rest.strides, rest.rest) == ([], 3 if log is LOG else 1)


def test_lines_are_read_from_a_place_within_a_slice(store: SyncStore) -> None:
    mixed(store, 20)
    slices = [Slice(after=0, until=30, skip=1), Slice(after=30, until=None, skip=0)]
    read = store.read(lambda tx: log_lookup.lines(tx, ERRORS, slices, 10, 5))
    assert [(each["message"], each["chars"]) for each in read] == [("line ", 6), ("line ", 7), ("line ", 7)]
    whole = store.read(lambda tx: log_lookup.lines(tx, LOG, slices, 3, 100))
    assert [(each["message"], each["chars"]) for each in whole] == [(f"line {n}", None) for n in (1, 2, 3)]


def test_a_search_finds_the_next_line_on_either_side_whatever_its_case(store: SyncStore) -> None:
    append(store, line(0, message="Strasse A"), line(1, message="b"), line(2, message="STRASSE c", level=40), line(3))
    append(store, line(4, message="strasse", flow_run_id=RUN_2), line(5, message="100% strasse_"))
    assert [found(store, "strasse", after=key).key for key in (0, 1, 3, 6)] == [1, 3, 6, None]
    assert [found(store, "STRASSE", before=key).key for key in (7, 6, 3, 1)] == [6, 3, 1, None]
    assert found(store, "strasse", ERRORS).key == 3
    assert found(store, None, ERRORS, after=3).key is None
    assert [found(store, text).key for text in ("%", "_", "0% s")] == [6, 6, 6]


def test_a_search_ends_after_so_many_lines_or_so_much_text_and_says_where_to_go_on(
    store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lookup, "FIND_LINES", 10)
    monkeypatch.setattr(log_lookup, "FIND_STEP", 5)
    append(store, *(line(n) for n in range(25)), line(25, message="needle"))
    steps = [found(store, "needle")]
    while (resume := steps[-1].resume) is not None:
        steps.append(found(store, "needle", after=resume))
    assert [(each.key, each.searched) for each in steps] == [(None, 10), (None, 10), (26, 6)]
    monkeypatch.setattr(log_lookup, "FIND_CHARS", 20)
    assert found(store, "needle").searched == 5
    back = found(store, "line 3", before=26)
    assert (back.key, back.searched, found(store, "line 3", before=back.resume).key) == (None, 5, None)
    assert found(store, "line 3", before=7).key == 4


def test_only_lines_of_the_run_have_a_place_in_its_log(store: SyncStore) -> None:
    append(store, line(0), line(1, flow_run_id=RUN_2))
    append(store, line(2), workspace=OTHER_WORKSPACE)
    cursors = store.read(lambda tx: log_lookup.cursors(tx, [1, 2, 3, 4]))
    keys = store.read(lambda tx: [log_lookup.key_of(tx, RUN, str(each)) for each in cursors])
    assert keys == [1, None, None, None]
    assert store.read(lambda tx: log_lookup.key_of(tx, RUN, ids.new_id())) is None


IN_ORDER = "logs_run_order (flow_run=? AND workspace=?"
QUESTIONS: dict[str, Callable[[Tx], object]] = {
    "a survey": lambda tx: log_lookup.survey(tx, LOG, 1),
    "a survey of a level": lambda tx: log_lookup.survey(tx, ERRORS, 1),
    "lines": lambda tx: log_lookup.lines(tx, ERRORS, [Slice(after=0, until=3, skip=1)], 100, 100),
    "the last lines": lambda tx: log_lookup.lines(tx, LOG, [Slice(after=0, until=None, skip=1)], 100, 100),
    "a line's number": lambda tx: log_lookup.count_until(tx, ERRORS, 0, 5),
    "the next match": lambda tx: log_lookup.find(tx, LOG, "x", after=1),
    "the previous error": lambda tx: log_lookup.find(tx, ERRORS, None, before=900),
    "the first line": lambda tx: log_lookup.first(tx, RUN),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_question_scans_or_sorts(store: SyncStore, name: str) -> None:
    append(store, line(0))
    asked = plan(store, QUESTIONS[name])
    assert IN_ORDER in asked
    assert "TEMP B-TREE" not in asked
    assert_no_scan(asked)
    assert name != "a survey" or f"COVERING INDEX {IN_ORDER}" in asked


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_question_takes_longer_in_a_longer_log(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lookup, "STRIDE_LINES", 50)
    monkeypatch.setattr(log_lookup, "FIND_LINES", 50)
    monkeypatch.setattr(log_lookup, "FIND_STEP", 25)
    steps = []
    for count in (1_000, 5_000):
        with closing(store_of_lines()) as made:
            append(made, *(line(n) for n in range(count)))
            steps.append(made.steps(QUESTIONS[name]))
    assert steps[0] == steps[1]
