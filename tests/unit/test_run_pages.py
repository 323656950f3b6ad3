"""What the pages of runs are made of: charts, phases, filters in addresses, artifacts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from managedd.ui import artifacts, charts, markdown, phases, run_filters

HOSTILE_LINKS = (
    "javascript:window.hacked=1", "JaVaScRiPt:alert(1)", "data:text/html,<script>x</script>", "vbscript:x", "file:///etc/passwd",
    "&#106;avascript:x", "java\tscript:x", "//elsewhere", "/runs", "ftp://x",
)  # fmt: skip
T0 = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    return (T0 + timedelta(seconds=seconds)).isoformat()


# --- phases --------------------------------------------------------------------------------------------------------------


def state(type_: str, seconds: float, due: float | None = None) -> dict[str, Any]:
    details = {} if due is None else {"scheduled_time": at(due)}
    return {"type": type_, "timestamp": at(seconds), "state_details": details}


def execution(claimed: float, attempt: int = 1, **moments: float | None) -> dict[str, Any]:
    names = ("started_at", "installed_at", "exited_at")
    told = {name: None if moments.get(name) is None else at(moments[name] or 0.0) for name in names}
    return {"attempt": attempt, "claimed_at": at(claimed), **told}


def shown(attempt: phases.Attempt) -> dict[str, float | None]:
    return {phase.name: phase.seconds for phase in attempt.phases}


def test_a_finished_attempt_has_its_five_phases_one_after_the_other() -> None:
    states = [state("SCHEDULED", 0, due=0), state("PENDING", 5), state("RUNNING", 40), state("COMPLETED", 100)]
    run = execution(5, started_at=12, installed_at=30, exited_at=101)
    (attempt,) = phases.attempts([run], states)
    assert shown(attempt) == {"queued": 5, "pull": 7, "install": 18, "start": 10, "run": 61}


@pytest.mark.parametrize(
    ("moments", "states", "open_phase"),
    [
        ({}, [state("PENDING", 5)], "pull"),
        ({"started_at": 12}, [state("PENDING", 5)], "install"),
        ({"started_at": 12, "installed_at": 20}, [state("PENDING", 5)], "start"),
        ({"started_at": 12, "installed_at": 20}, [state("PENDING", 5), state("RUNNING", 25)], "run"),
    ],
)
def test_what_goes_on_is_the_last_and_has_no_seconds(
    moments: dict[str, float], states: list[dict[str, Any]], open_phase: str
) -> None:
    (attempt,) = phases.attempts([execution(5, **moments)], [state("SCHEDULED", 0), *states])
    *before, last = attempt.phases
    assert (last.name, last.seconds) == (open_phase, None)
    assert all(phase.seconds is not None for phase in before)
    assert last.width >= 100 * phases.OPEN_SHARE - 1


def test_a_run_that_waits_is_queued_since_it_was_due_over_all_the_states_in_which_it_waits() -> None:
    waiting = [state("SCHEDULED", 0, due=60), state("SCHEDULED", 70, due=60), state("SCHEDULED", 90)]
    (attempt,) = phases.attempts([], waiting)
    assert [(phase.name, phase.begin, phase.end) for phase in attempt.phases] == [
        ("queued", T0 + timedelta(seconds=60), None)
    ]


def test_an_attempt_that_ended_before_its_flow_ran_ends_in_the_phase_it_was_in() -> None:
    states = [state("SCHEDULED", 0), state("PENDING", 5), state("CRASHED", 20)]
    (attempt,) = phases.attempts([execution(5, exited_at=21)], states)
    assert shown(attempt) == {"queued": 5, "pull": 16}


def test_each_attempt_is_told_and_the_next_one_s_waiting_too() -> None:
    states = [
        state("SCHEDULED", 0), state("PENDING", 5), state("RUNNING", 20), state("FAILED", 50),
        state("SCHEDULED", 60), state("PENDING", 61), state("RUNNING", 80), state("FAILED", 90), state("SCHEDULED", 95),
    ]  # fmt: skip
    first = execution(5, 1, started_at=8, installed_at=10, exited_at=51)
    second = execution(61, 2, started_at=64, installed_at=66, exited_at=92)
    told = phases.attempts([second, first], states)
    assert [attempt.number for attempt in told] == [1, 2, 3]
    assert shown(told[0]) == {"queued": 5, "pull": 3, "install": 2, "start": 10, "run": 31}
    assert shown(told[1]) == {"queued": 1, "pull": 3, "install": 2, "start": 14, "run": 12}
    assert shown(told[2]) == {"queued": None}


def test_states_alone_tell_of_a_run_without_executions() -> None:
    states = [state("SCHEDULED", 0), state("PENDING", 3), state("RUNNING", 7), state("COMPLETED", 17)]
    (attempt,) = phases.attempts([], states)
    assert shown(attempt) == {"queued": 3, "start": 4, "run": 10}
    assert phases.attempts([], []) == []


@given(
    st.lists(
        st.tuples(st.sampled_from(["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "FAILED"]), st.floats(0, 1e6)),
        max_size=12,
    ),
    st.lists(st.tuples(st.floats(0, 1e6), *[st.none() | st.floats(0, 1e6) for _ in range(3)]), max_size=3),
)
def test_whatever_was_written_down_the_bar_is_filled_from_left_to_right(
    states: list[tuple[str, float]], tried: list[tuple[float, float | None, float | None, float | None]]
) -> None:
    runs = [
        execution(claimed, attempt, started_at=started, installed_at=installed, exited_at=ended)
        for attempt, (claimed, started, installed, ended) in enumerate(tried, 1)
    ]
    for attempt in phases.attempts(runs, [state(*each) for each in states]):
        x = 0.0
        for phase in attempt.phases:
            assert phase.x == pytest.approx(x, abs=0.01)
            assert phase.width >= 0
            assert phase.seconds is None or phase.seconds >= 0
            x += phase.width
        assert x == pytest.approx(100, abs=0.1)


# --- charts --------------------------------------------------------------------------------------------------------------


def test_stacks_stand_on_the_axis_and_the_highest_reaches_the_top() -> None:
    history = [
        {"start": at(0), "end": at(3600), "counts": {"COMPLETED": 3, "FAILED": 1, "CRASHED": 1}},
        {"start": at(3600), "end": at(7200), "counts": {}},
        {"start": at(7200), "end": at(10800), "counts": {"RUNNING": 1}},
    ]
    chart = charts.stacks(history)
    first, empty, last = chart.columns
    assert chart.highest == 5
    assert chart.totals == {"good": 3, "bad": 2, "busy": 1}
    assert [bar.kind for bar in first.bars] == ["good", "bad"]
    assert sum(bar.height for bar in first.bars) == pytest.approx(charts.HEIGHT)
    assert first.bars[1].y == 0
    assert (empty.bars, empty.text) == ((), "none")
    assert last.bars[0].y + last.bars[0].height == pytest.approx(charts.HEIGHT)
    assert first.text == "3 completed, 2 failed or crashed"
    assert first.label == "11-23 08:00–09:00"
    assert charts.stacks([]).highest == 0


def test_durations_are_of_runs_that_have_ended_in_the_order_of_their_starts() -> None:
    def run(name: str, start: float | None, end: float | None) -> dict[str, Any]:
        times = {"start_time": None if start is None else at(start), "end_time": None if end is None else at(end)}
        return {"name": name, "state_type": "COMPLETED", "state_name": "Completed", **times}

    chart = charts.durations([run("b", 50, 60), run("a", 0, 40), run("c", 70, None), run("d", None, 80)])
    assert chart is not None
    assert [column.label for column in chart.columns] == ["a", "b"]
    assert chart.longest_seconds == 40
    assert chart.columns[1].bars[0].height == pytest.approx(charts.HEIGHT / 4)
    assert charts.durations([run("c", 70, None)]) is None


def test_a_timeline_has_what_goes_on_up_to_its_edge_and_nothing_for_what_has_not_begun() -> None:
    rows = [
        {"start_time": at(0), "end_time": at(50)},
        {"start_time": at(50), "end_time": at(100)},
        {"start_time": at(90), "end_time": None},
        {"start_time": None, "end_time": None},
    ]
    first, second, third, fourth = charts.timeline(rows)
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.x, first.seconds) == (0, 50)
    assert second.x == pytest.approx(first.width, abs=0.1)
    assert third.is_open
    assert third.x + third.width == pytest.approx(charts.WIDTH)
    assert fourth is None
    assert charts.timeline([]) == []


def test_memory_and_processors_are_drawn_against_their_limits() -> None:
    used = {
        "memory_limit_bytes": 200, "cpu_limit": 2.0,
        "samples": [
            {"at": at(0), "memory_bytes": 50, "cpu_seconds": 0.0}, {"at": at(10), "memory_bytes": 100, "cpu_seconds": 5.0},
            {"at": at(30), "memory_bytes": 75, "cpu_seconds": 35.0},
        ],
    }  # fmt: skip
    memory, processors = charts.memory(used), charts.processors(used)
    assert memory is not None
    assert processors is not None
    assert (memory.highest, memory.limit, memory.top) == (100, 200, 210)
    assert memory.points.split()[-1] == f"600.0,{round(charts.HEIGHT * (1 - 75 / 210), 2)}"
    assert [value for _, value in processors.rows] == [0.5, 1.5]
    assert [after for after, _ in memory.rows] == ["0.0 s", "10 s", "30 s"]
    assert charts.memory({"memory_limit_bytes": None, "samples": []}) is None


# --- filters -------------------------------------------------------------------------------------------------------------


def test_what_an_address_asks_for_is_written_into_the_next_one() -> None:
    deployment = "00000000-0000-4000-8000-000000000001"
    chosen = run_filters.read(
        MultiDict(
            [("state", "failed"), ("state", "CRASHED"), ("name", " etl&<x> "), ("deployment", deployment.upper()),
             ("tag", "a, b"), ("tag", "c"), ("pool", "my pool"), ("since", "7d"), ("offset", "50")]
        )
    )  # fmt: skip
    assert chosen.state == ("FAILED", "CRASHED")
    assert (chosen.name, chosen.tag, chosen.deployment) == ("etl&<x>", ("a", "b", "c"), (deployment,))
    assert (chosen.since, chosen.offset) == ("7d", 50)
    again = run_filters.read(MultiDict(parse_qsl(chosen.query.rstrip("&"))))
    assert again == replace(chosen, offset=0)
    assert "name=etl%26%3Cx%3E&" in chosen.query
    assert run_filters.read(MultiDict()).query == ""


@pytest.mark.parametrize(
    "query",
    [
        "since=9y",
        "until=x",
        "sort=DROP",
        "offset=-1",
        "offset=99999999",
        "offset=٣",
        "state=NONE",
        "deployment=x",
        "tag=,,",
        "name=+",
    ],
)
def test_what_makes_no_sense_is_as_if_it_were_not_there(query: str) -> None:
    name, _, value = query.partition("=")
    assert run_filters.read(MultiDict([(name, value.replace("+", " "))])) == run_filters.RunFilter()


def test_states_are_chosen_and_unchosen_one_by_one() -> None:
    chosen = run_filters.RunFilter(offset=50).with_state("FAILED").with_state("COMPLETED")
    assert (chosen.state, chosen.offset) == (("COMPLETED", "FAILED"), 0)
    assert chosen.with_state("FAILED").state == ("COMPLETED",)


def test_the_api_is_asked_for_just_that() -> None:
    chosen = run_filters.RunFilter(state=("FAILED",), name="x", tag=("a",), pool=("p",), since="1h", until="any")
    assert chosen.body(T0) == {
        "flow_runs": {
            "state": {"type": {"any_": ["FAILED"]}},
            "name": {"like_": "x"},
            "tags": {"all_": ["a"]},
            "start_time": {"after_": at(-3600)},
        },
        "work_pools": {"name": {"any_": ["p"]}},
    }


@pytest.mark.parametrize("since", list(run_filters.SINCE))
@pytest.mark.parametrize("until", list(run_filters.UNTIL))
def test_the_chart_s_intervals_hold_now_and_are_the_same_a_moment_later(since: str, until: str) -> None:
    chosen = run_filters.RunFilter(since=since, until=until)
    frame = ("start", "interval_seconds", "intervals", "by")
    asked = chosen.history(T0)
    begin = datetime.fromisoformat(asked["start"])
    end = begin + timedelta(seconds=asked["interval_seconds"] * asked["intervals"])
    assert begin <= T0 < end
    later = chosen.history(T0 + timedelta(seconds=30))
    assert [later[name] for name in frame] == [asked[name] for name in frame]
    assert asked["intervals"] <= 101
    # All of the list's own time is in it, and nothing else is counted.
    window = asked.get("flow_runs", {}).get("start_time", {})
    assert (window.get("after_"), window.get("before_")) == (
        None if since == "any" else (T0 - timedelta(seconds=run_filters.SINCE[since] or 0)).isoformat(),
        None if until == "any" else (T0 + timedelta(seconds=run_filters.UNTIL[until] or 0)).isoformat(),
    )
    assert all(begin <= datetime.fromisoformat(moment) < end for moment in window.values())


def test_the_chart_counts_by_the_time_by_which_the_list_is_in_order() -> None:
    for sort in run_filters.SORTS:
        asked = run_filters.RunFilter(sort=sort).history(T0)
        assert set(asked["flow_runs"]) == {asked["by"]}


# --- artifacts -----------------------------------------------------------------------------------------------------------


def artifact(type_: str | None, data: Any, **more: Any) -> artifacts.Shown:
    made = {
        "id": "1",
        "key": "k",
        "type": type_,
        "data": data,
        "description": None,
        "beginning": None,
        "chars": 1,
        **more,
    }
    (found,) = artifacts.all_shown([made])
    return found


@pytest.mark.parametrize("link", HOSTILE_LINKS)
@pytest.mark.parametrize("form", ["[a]({})", "![a]({})", "<{}>", "[a][1]\n\n[1]: {}"])
def test_no_link_but_http_and_mail_is_made(form: str, link: str) -> None:
    assert "href" not in markdown.html(form.format(link))


def test_html_in_markdown_stays_text_and_images_are_links() -> None:
    made = markdown.html('# T\n<b onclick=x>b</b> <script>x</script>\n\n![p](https://e/x.png) [l](https://e/?a="&b)')
    assert "<script" not in made
    assert "<b " not in made
    assert "<img" not in made
    assert '<a href="https://e/x.png" rel="noopener noreferrer nofollow" target="_blank">p</a>' in made
    assert made.startswith("<h4>T</h4>")
    assert "style" not in markdown.html("|a|\n|:-:|\n|1|")


def test_a_long_text_is_cut() -> None:
    assert len(markdown.html("x" * 2 * markdown.MAX_CHARS)) < markdown.MAX_CHARS + 100


@pytest.mark.parametrize(
    ("data", "columns", "rows"),
    [
        ('[{"a": 1, "b": "<x>"}, {"b": null}]', ("a", "b"), (("1", "<x>"), ("", "null"))),
        ([["x", 1], ["y"]], ("1", "2"), (("x", "1"), ("y", ""))),
        ({"a": [1, 2], "b": ["c"]}, ("a", "b"), (("1", "c"), ("2", ""))),
    ],
)
def test_tables_of_every_form_are_tables(
    data: Any, columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]
) -> None:
    found = artifact("table", data)
    assert (found.columns, found.rows, found.more_rows) == (columns, rows, 0)


def test_a_large_table_says_what_it_leaves_out() -> None:
    found = artifact("table", [{"n": n} for n in range(1000)])
    assert (len(found.rows), found.more_rows) == (artifacts.MAX_ROWS, 1000 - artifacts.MAX_ROWS)


@pytest.mark.parametrize(
    "data",
    [
        [{f"{row}-{column}": 1 for column in range(1000)} for row in range(200)],
        [[1] * 5000] * 300,
        {str(name): [1] for name in range(5000)},
    ],
)
def test_a_table_has_no_more_cells_than_a_page_can_show(data: Any) -> None:
    found = artifact("table", data)
    assert len(found.columns) == artifacts.MAX_COLUMNS
    assert sum(len(row) for row in found.rows) <= artifacts.MAX_ROWS * artifacts.MAX_COLUMNS


@pytest.mark.parametrize("depth", [400, 900, 980, 5000])
def test_however_deep_an_artifact_is_it_is_shown(depth: int) -> None:
    nested = "[" * depth + "]" * depth
    assert artifact("table", f'[{{"a": {nested}}}]').id == "1"


@pytest.mark.parametrize(
    ("type_", "data"),
    [("table", "no JSON"), ("table", []), ("table", "[" * 5000), ("table", 3), ("progress", "much"), ("progress", None), ("progress", True),
     ("progress", "nan"), ("image", "javascript:x"), ("image", None), ("markdown", {"a": 1}), (None, [1])],
)  # fmt: skip
def test_what_does_not_have_its_type_s_form_is_text(type_: str | None, data: Any) -> None:
    found = artifact(type_, data)
    assert found.text
    assert (found.html, found.columns, found.link, found.progress) == (None, (), None, None)


@pytest.mark.parametrize(("data", "expected"), [(42.5, 42.5), ("10", 10.0), (-3, 0.0), (900, 100.0), (10**400, None)])
def test_progress_is_between_none_and_all(data: Any, expected: float | None) -> None:
    assert artifact("progress", data).progress == expected
