"""Which lines of a run are kept: rates by the lines' own times, bursts, and a size."""

from __future__ import annotations

from itertools import pairwise

import pytest

from managedd.model import log_limits
from managedd.model.log_limits import (
    LINE_OVERHEAD_BYTES,
    NO_LIMITS,
    Dropped,
    Excess,
    LogGate,
    LogLimits,
    SentGate,
    SentGates,
    full,
    size_of,
    told,
)

SECOND_NS = 1_000_000_000


def kept(gate: LogGate, count: int, per_second: float, text_bytes: int = 10, begin_ns: int = 0) -> list[int]:
    """Which of `count` lines, printed at an even rate and read in an instant, are kept."""
    return [n for n in range(count) if gate.admit(begin_ns + int(n * SECOND_NS / per_second), text_bytes, 0.0)]


def test_without_limits_everything_is_kept() -> None:
    assert len(kept(LogGate(NO_LIMITS), 10_000, 1e6, text_bytes=10**6)) == 10_000


def test_a_steady_run_below_the_rate_loses_nothing() -> None:
    assert len(kept(LogGate(LogLimits(lines_per_second=100, burst_seconds=1)), 5_000, 99)) == 5_000


@pytest.mark.parametrize(
    ("limits", "excess"),
    [
        (LogLimits(lines_per_second=100, burst_seconds=10), Excess.LINES),
        (LogLimits(bytes_per_second=1_000, burst_seconds=10), Excess.BYTES),
    ],
)
def test_a_flood_has_its_burst_and_then_the_rate(limits: LogLimits, excess: Excess) -> None:
    gate = LogGate(limits)
    flood = kept(gate, 100_000, 1_000)
    assert flood[:1_000] == list(range(1_000))
    assert gate.excess is excess
    # 100 seconds at 100 lines a second, besides the burst.
    assert 1_000 + 99 * 100 <= len(flood) <= 1_000 + 101 * 100


def test_the_gaps_are_few() -> None:
    """Kept lines come a second's worth at a time, so that a gap is told once a second and not once a line."""
    flood = kept(LogGate(LogLimits(lines_per_second=100, burst_seconds=10)), 100_000, 1_000)
    gaps = sum(after - before > 1 for before, after in pairwise(flood))
    assert gaps <= 101


def test_a_run_that_has_calmed_down_is_kept_again() -> None:
    gate = LogGate(LogLimits(lines_per_second=100, burst_seconds=1))
    kept(gate, 1_000, 100_000)
    assert gate.excess is Excess.LINES
    assert len(kept(gate, 500, 50, begin_ns=10 * SECOND_NS)) == 500
    assert gate.excess is None


def test_what_waited_while_nobody_read_counts_by_when_it_was_printed() -> None:
    """An hour's lines at a moderate rate, all read in an instant."""
    gate = LogGate(LogLimits(lines_per_second=100, burst_seconds=2))
    assert len(kept(gate, 90 * 3_600, 90)) == 90 * 3_600


def test_times_that_step_back_give_nothing() -> None:
    gate = LogGate(LogLimits(lines_per_second=1, burst_seconds=1))
    assert gate.admit(100 * SECOND_NS, 1, 0.0)
    assert not gate.admit(50 * SECOND_NS, 1, 0.0)
    assert gate.admit(101 * SECOND_NS, 1, 0.0)


@pytest.mark.parametrize("burst_seconds", [1.0, 60.0])
def test_a_run_on_a_host_whose_clock_was_set_back_is_judged_by_when_it_is_read(burst_seconds: float) -> None:
    """The time of its lines stands still for as long as the clock was set back."""
    limits = LogLimits(lines_per_second=100, bytes_per_second=10_000, burst_seconds=burst_seconds)
    gate, at = LogGate(limits), 0.0
    for n in range(20_000):
        at = 1_000 + n / 90
        assert gate.admit(3_600 * SECOND_NS, 10, at), n
    flood = sum(gate.admit(3_600 * SECOND_NS, 10, at + n / 1_000) for n in range(100_000))
    burst = 100 * burst_seconds
    assert 99 * 100 <= flood <= burst + 101 * 100


@pytest.mark.parametrize("late", [0.0, 0.05, 2.0])
def test_both_clocks_together_let_through_no_more_than_one(late: float) -> None:
    """Lines are read in pieces, each some time after it was printed."""
    gate = LogGate(LogLimits(lines_per_second=100, burst_seconds=5))
    times = [n / 1_000 for n in range(100_000)]
    flood = sum(gate.admit(int(at * SECOND_NS), 10, at if late == 0 else at // late * late + late) for at in times)
    assert 99 * 100 <= flood <= 500 + 101 * 100 + 500


def test_a_clock_that_was_far_behind_has_its_say_again_in_a_bursts_time() -> None:
    """An hour's lines were read in an instant; then the host's clock is set back."""
    gate = LogGate(LogLimits(lines_per_second=100, burst_seconds=10))
    assert len(kept(gate, 80 * 3_600, 80)) == 80 * 3_600
    found = [gate.admit(3_600 * SECOND_NS, 10, n / 80) for n in range(80 * 60)]
    assert all(found[80 * 30 :])


def test_one_line_may_be_larger_than_a_burst() -> None:
    gate = LogGate(LogLimits(bytes_per_second=1_000, burst_seconds=1))
    assert gate.admit(SECOND_NS, 5_000, 0.0)
    assert not gate.admit(2 * SECOND_NS, 1, 0.0)
    assert gate.admit(7 * SECOND_NS, 1, 0.0)


@pytest.mark.parametrize("text_bytes", [0, 50])
def test_the_size_counts_lines_too_and_ends_for_good(text_bytes: int) -> None:
    gate = LogGate(LogLimits(max_bytes=10 * (LINE_OVERHEAD_BYTES + text_bytes) + 1))
    assert kept(gate, 100, 1, text_bytes) == list(range(10))
    assert gate.excess is Excess.SIZE
    assert not gate.admit(10**15, 0, 0.0)


def test_the_size_goes_on_from_what_is_stored() -> None:
    limits = LogLimits(max_bytes=10 * (LINE_OVERHEAD_BYTES + 10))
    assert len(kept(LogGate(limits, 7 * (LINE_OVERHEAD_BYTES + 10)), 100, 1)) == 3


def test_what_others_store_meanwhile_counts_with_what_is_on_its_way() -> None:
    gate = LogGate(LogLimits(max_bytes=10 * (LINE_OVERHEAD_BYTES + 10)))
    gate.begin(0)
    assert len(kept(gate, 4, 1)) == 4
    # Three of the four are stored, and three of somebody else's.
    gate.settle(3 * (LINE_OVERHEAD_BYTES + 10), 6 * (LINE_OVERHEAD_BYTES + 10))
    assert len(kept(gate, 100, 1)) == 3


def test_what_a_line_takes_besides_counts() -> None:
    gate = LogGate(LogLimits(max_bytes=10 * (LINE_OVERHEAD_BYTES + 10)))
    assert [gate.admit(0, 10, 0.0, LINE_OVERHEAD_BYTES + 10) for _ in range(6)] == [True] * 5 + [False]


def sent(gate: SentGate, seconds: float, lines: int, text_bytes: int = 10) -> int:
    return gate.admit([text_bytes] * lines, int(seconds * SECOND_NS))


@pytest.mark.parametrize("first", [0.0, 1e6])
def test_who_sends_lines_has_a_burst_and_then_the_rate(first: float) -> None:
    gate = SentGate(LogLimits(lines_per_second=100, burst_seconds=10))
    assert [sent(gate, first, 400) for _ in range(4)] == [400, 400, 200, 0]
    assert gate.excess is Excess.LINES
    # A second's worth has to come again first.
    assert sent(gate, first + 0.9, 1) == 0
    assert sent(gate, first + 1.0, 400) == 100
    assert sent(gate, first + 3.0, 150) == 150
    assert gate.excess is None


def test_who_sends_lines_has_so_many_bytes_a_second() -> None:
    gate = SentGate(LogLimits(bytes_per_second=1_000, burst_seconds=2))
    assert sent(gate, 0, 10, 150) == 10
    assert sent(gate, 0, 10, 150) == 4, "the last of them may overdraw what is left"
    assert gate.excess is Excess.BYTES
    assert sent(SentGate(NO_LIMITS), 0, 10_000, 10**9) == 10_000


def test_whoever_sent_last_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_limits, "SENDERS", 2)
    gates = SentGates(LogLimits(lines_per_second=1, burst_seconds=5))
    for sender in ("a", "b", "a", "c"):
        sent(gates.of(sender), 0, 2)
    assert {sender: sent(gates.of(sender), 0, 9) for sender in ("a", "c")} == {"a": 1, "c": 3}
    assert sent(gates.of("b"), 0, 9) == 5


def test_the_words_name_how_much_and_the_setting() -> None:
    limits = LogLimits(lines_per_second=5_000, bytes_per_second=4 * 1024**2, max_bytes=512 * 1024**2)
    assert told(Dropped(12_345, 3 * 1024**2), Excess.LINES, limits) == (
        "12,345 lines (3.0 MiB) dropped here: the run printed more than 5,000 lines a second (runs.log_lines_per_second)."
    )
    assert "1 line (7 bytes) dropped here" in told(Dropped(1, 7), Excess.BYTES, limits)
    assert "4.0 MiB a second (runs.log_bytes_per_second)" in told(Dropped(1, 7), Excess.BYTES, limits)
    assert "512.0 MiB (runs.log_max_bytes)" in told(Dropped(1, 7), Excess.SIZE, limits)
    assert "dropped here" in told(Dropped(2, 7), None, NO_LIMITS)
    assert "512.0 MiB (runs.log_max_bytes)" in full(512 * 1024**2)


def test_a_text_is_as_large_as_its_bytes() -> None:
    assert [size_of(text) for text in ("", "abc", "ä€😀", "broken \ud800")] == [0, 3, 9, 8]
