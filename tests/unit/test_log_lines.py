"""Which lines `managedd logs` shows, and how."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from managedd.cli.log_lines import Choice, Printer
from managedd.cli.output import print_json
from managedd.errors import ManagedError


def line(message: str = "hello", level: int = 20, at: str = "2026-11-22T04:00:00Z") -> dict[str, Any]:
    return {"message": message, "level": level, "timestamp": at, "name": "flow"}


def choice(since: str | None = None, level: str | None = None, grep: str | None = None) -> Choice:
    return Choice.of(since, level, grep)


@pytest.mark.parametrize(
    ("span", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("2d", 172_800), ("1w", 604_800), ("0.5h", 1800)]
)
def test_since_takes_a_span_of_time(span: str, seconds: float) -> None:
    before = datetime.now(UTC)
    since = choice(since=span).since
    assert since is not None
    assert before <= since + timedelta(seconds=seconds) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-22T04:00:00Z", True),
        ("2026-11-22T04:00:01+00:00", False),
        ("2026-11-22T05:00:00+01:00", True),
        ("2026-11-20", True),
    ],
)
def test_since_takes_a_moment(text: str, shown: bool) -> None:
    assert choice(since=text).admits(line()) is shown


@pytest.mark.parametrize(
    ("level", "least"), [("debug", 10), ("Info", 20), ("WARN", 30), ("warning", 30), ("error", 40), ("35", 35)]
)
def test_a_level_is_a_name_or_a_number(level: str, least: int) -> None:
    chosen = choice(level=level)
    assert [chosen.admits(line(level=at)) for at in (least - 1, least, least + 1)] == [False, True, True]


def test_grep_looks_for_an_expression_in_the_text() -> None:
    chosen = choice(grep=r"row \d+$")
    assert chosen.admits(line("read row 17"))
    assert not chosen.admits(line("read row x"))
    assert not chosen.admits(line("nothing"))


def test_only_a_choice_without_conditions_is_all() -> None:
    assert choice().is_all
    assert not any(one.is_all for one in (choice(since="1s"), choice(level="info"), choice(grep="x")))
    assert choice().query("r") == {"flow_run_id": {"any_": ["r"]}}


@pytest.mark.parametrize(
    "options",
    [
        {"since": "yesterday"},
        {"since": "5"},
        {"since": "99999999999w"},
        {"level": "loud"},
        {"level": "-1"},
        {"grep": "("},
    ],
)
def test_what_can_not_be_meant_is_refused_with_what_is_allowed(options: dict[str, str]) -> None:
    with pytest.raises(ManagedError, match=rf"^--{next(iter(options))} .*: allowed: "):
        choice(**options)


def test_a_pipe_gets_the_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer(choice(level="info"), as_json=False)
    printer.show(line("\x1b[31mred\x1b[0m", 40))
    printer.show(line(level=10))
    assert capsys.readouterr().out.endswith(" ERROR    flow | \x1b[31mred\x1b[0m\n")


@pytest.mark.parametrize("no_colour", [None, "NO_COLOR", "TERM"])
def test_a_terminal_sees_the_level_in_colour_and_nothing_that_commands_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_colour: str | None
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    if no_colour is not None:
        monkeypatch.setenv(no_colour, "dumb")
    printer = Printer(choice(), as_json=False)
    for level in (10, 20, 30, 40, 50):
        printer.show(line("\x1b[31mred\x1b[0m \x1b]0;title\x07", level))
    shown = capsys.readouterr().out.splitlines()
    assert all(text.endswith("flow | red �]0;title�") for text in shown)
    assert len({text.partition("\x1b[")[2].partition("m")[0] for text in shown}) == (1 if no_colour else 5)
    assert all(("\x1b[" in text) is (no_colour is None) for text in shown)


@pytest.mark.parametrize("on_terminal", [True, False])
def test_no_line_of_a_run_looks_like_one_of_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, on_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: on_terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    ours = "2026-11-22 04:00:00.000 ERROR    managedd | The run was killed"
    printer = Printer(choice(), as_json=False)
    printer.show(line(f"ok\n{ours}\n"))
    printer.show({**line("text"), "name": f"flow\n{ours}\r\x85"})
    printer.end({"name": "Failed", "message": f"no\n{ours}"})
    out, err = capsys.readouterr()
    assert [text for text in out.split("\n") if ours in text and text.startswith("2026")] == [out.split("\n")[3]]
    assert out.split("\n")[1:3] == [f"    {ours}", "    "]
    assert out.split("\n")[3].endswith(f" INFO     flow�{ours}�� | text")
    assert err == f"managedd: the run has ended as Failed: no\n    {ours}\n"


def test_json_holds_no_character_that_commands_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)])) + "\N{GREEK SMALL LETTER ALPHA}"
    Printer(choice(), as_json=True).show(line(hostile))
    print_json({"name": hostile})
    for shown in (out := capsys.readouterr().out).split("\n", 1):
        assert "\N{GREEK SMALL LETTER ALPHA}" in shown
        assert not [character for character in shown if character != "\n" and not character.isprintable()]
    assert json.loads(out.split("\n", 1)[0])["message"] == json.loads(out.split("\n", 1)[1])["name"] == hostile


def test_json_is_one_object_in_each_line_and_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer(choice(), as_json=True)
    printer.show(line("two\nlines"))
    printer.end({"name": "Completed", "message": None})
    out, err = capsys.readouterr()
    assert [json.loads(text)["message"] for text in out.splitlines()] == ["two\nlines"]
    assert err == ""
