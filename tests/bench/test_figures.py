"""The pure parts of the bench: percentiles, ratios, targets, the file, the comparison, the table, the generator's reading of answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.bench import load
from tests.bench.figures import TARGETS, Better, Figure, Reading, Report, changes, percentile
from tests.bench.measures import CLIENTS, SHAPES
from tests.bench.table import change_table, number, report_table

if TYPE_CHECKING:
    from pathlib import Path


def reading(value: float | None) -> Reading | None:
    return None if value is None else Reading(value=value, n=3)


def figure(
    key: str, ours: float | None, theirs: float | None, *, better: Better = "higher", shown: bool = True
) -> Figure:
    return Figure(
        key=key, title=f"the {key}", unit="1/s", better=better, managedd=reading(ours), peer=reading(theirs), shown=shown
    )  # fmt: skip


def report(*figures: Figure) -> Report:
    return Report(facts={"when": "2026-01-01"}, figures=figures, notes=["a note"])


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1.0), (50, 2.5), (95, 3.85), (100, 4.0)], ids=["least", "median", "p95", "most"]
)
def test_a_percentile_lies_between_its_neighbours(percent: float, value: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], percent) == pytest.approx(value)


def test_a_percentile_of_one_value_and_of_none() -> None:
    assert percentile([7.0], 95) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_ratio_says_how_many_times_better_managedd_is() -> None:
    assert figure("creates", 600.0, 30.0).ratio == 20.0
    assert figure("memory", 80.0, 240.0, better="lower").ratio == 3.0


@pytest.mark.parametrize(
    ("ours", "theirs", "better"), [(None, 1.0, "higher"), (1.0, None, "lower"), (1.0, 0.0, "higher"), (0.0, 5.0, "lower")]
)  # fmt: skip
def test_there_is_no_ratio_to_nothing(ours: float | None, theirs: float | None, better: Better) -> None:
    assert figure("x", ours, theirs, better=better).ratio is None


def test_targets_are_of_values_or_of_ratios() -> None:
    ready, creates = TARGETS["start.ready"], TARGETS["creates.1"]
    assert ready.held(figure("start.ready", 1.0, None, better="lower")) is True
    assert ready.held(figure("start.ready", 1.01, None, better="lower")) is False
    assert ready.held(figure("start.ready", None, 9.0, better="lower")) is None
    assert creates.held(figure("creates.1", 600.0, 30.0)) is True
    assert creates.held(figure("creates.1", 599.0, 30.0)) is False
    assert creates.held(figure("creates.1", 600.0, None)) is None


def test_every_target_of_the_load_is_of_a_figure_there_is() -> None:
    keys = {f"{shape}.{clients}{suffix}" for shape in SHAPES for clients in CLIENTS for suffix in ("", ".errors")}
    assert {key for key in TARGETS if key.split(".")[0] in SHAPES} <= keys


def test_a_report_is_the_same_after_the_file(tmp_path: Path) -> None:
    before = report(figure("creates.1", 600.0, 30.0), figure("hidden", None, 1.0, shown=False))
    before.write(tmp_path / "new" / "report.json")
    after = Report.read(tmp_path / "new" / "report.json")
    assert (after.facts, list(after.figures), after.notes) == (before.facts, list(before.figures), before.notes)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps({"format": 0, "facts": {}, "figures": [], "notes": []}))
    with pytest.raises(ValueError, match="no report of this bench"):
        Report.read(tmp_path / "old.json")


def test_a_comparison_says_what_became_better_and_worse() -> None:
    before = report(
        figure("creates", 100.0, 30.0),
        figure("memory", 100.0, None, better="lower"),
        figure("gone", 1.0, 1.0),
    )
    after = report(
        figure("creates", 50.0, 31.0),
        figure("memory", 80.0, 200.0, better="lower"),
        figure("new", 1.0, 1.0),
    )
    found = {(change.key, change.system): change.gain for change in changes(before, after)}
    assert found == {
        ("creates", "managedd"): 0.5,
        ("creates", "peer"): pytest.approx(31 / 30),
        ("memory", "managedd"): 1.25,
    }
    lines = change_table(before, after).splitlines()
    assert ["WORSE" in line for line in lines] == [False, False, True, False, False]
    assert ["better" in line for line in lines] == [False, False, False, False, True]


def test_errors_that_appeared_are_worse_although_no_factor_says_how_much() -> None:
    lines = change_table(
        report(figure("errors", 0.0, 3.0, better="lower")), report(figure("errors", 2.0, 0.0, better="lower"))
    ).splitlines()
    assert lines[-2].endswith("WORSE")
    assert lines[-1].endswith("better")


def test_the_table_has_both_systems_the_ratio_and_the_target() -> None:
    lines = report_table(
        report(
            figure("creates.1", 1234.5, 30.0),
            figure("reads.1", 100.0, 50.0),
            figure("other", None, 2.0),
            figure("hidden", 1.0, 1.0, shown=False),
        )
    ).splitlines()
    assert lines[0].split() == ["unit", "managedd", "peer", "ratio", "target"]
    assert lines[2].split() == ["the", "creates.1", "1/s", "1,234", "30.0", "41.1", "×", "≥", "20", "×", "held"]
    assert lines[3].split() == ["the", "reads.1", "1/s", "100", "50.0", "2.00", "×", "≥", "20", "×", "MISSED"]
    assert lines[4].split() == ["the", "other", "1/s", "-", "2.00"]
    assert lines[5:] == ["note: a note"]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.123, "0.12"), (9.99, "9.99"), (12.34, "12.3"), (123.4, "123"), (48738.0, "48,738")]
)
def test_numbers_have_three_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


def test_an_answer_is_read_once_it_is_whole() -> None:
    head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nX: y\r\n\r\n"
    assert load.parsed(head[:-2]) is None
    assert load.parsed(head + b"{}") is None
    assert load.parsed(head + b"null") == (503, b"null")
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
    assert load.parsed(chunked) is None
    assert load.parsed(chunked + b"0\r\n\r\n") == (200, b"2\r\n{}\r\n0\r\n\r\n")
    assert load.parsed(b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n") == (204, b"")
