"""The log reader against a model of an engine's log file, fed with any cut of its stream."""

from __future__ import annotations

import itertools
import json
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from managedd.drivers.docker_logs import ENTRY_BYTES, REMEMBERED_ENTRIES, FrameError, LogReader
from managedd.model.logs import RECORD_MARK, LogCursor, RawLine, Stream, parse_record

START = 1_795_330_464
SECOND = 1_000_000_000


@dataclass(frozen=True)
class Entry:
    stream: Stream
    timestamp_ns: int
    text: bytes

    def __repr__(self) -> str:
        return f"{self.stream.value}@{self.timestamp_ns - START * SECOND} {self.text[:12]!r}*{len(self.text)}"

    def frame(self) -> bytes:
        seconds, nanos = divmod(self.timestamp_ns, SECOND)
        stamp = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z ".encode()
        payload = stamp + self.text
        return bytes([1 if self.stream is Stream.STDOUT else 2, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


def entries_of(stream: Stream, timestamp_ns: int, line: bytes) -> list[Entry]:
    """A line as the engine stores it: in parts of 16 KiB that carry the time of the first."""
    whole = line + b"\n"
    return [Entry(stream, timestamp_ns, whole[at : at + ENTRY_BYTES]) for at in range(0, len(whole), ENTRY_BYTES)]


def reading(file: list[Entry], since: str | None, *, each: bool) -> bytes:
    """What the engine sends: every entry of at least that time, or (newer engines) everything from the first such entry on."""
    if since is None:
        return b"".join(entry.frame() for entry in file)
    seconds, _, nanos = since.partition(".")
    begin = int(seconds) * SECOND + int(nanos)
    late = [number for number, entry in enumerate(file) if entry.timestamp_ns >= begin]
    if not late:
        return b""
    chosen = [file[number] for number in late] if each else file[late[0] :]
    return b"".join(entry.frame() for entry in chosen)


def feed(reader: LogReader, data: bytes, cuts: list[int]) -> list[RawLine]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [line for begin, end in itertools.pairwise(edges) for line in reader.feed(data[begin:end])]


streams = st.sampled_from(list(Stream))
texts = st.one_of(
    st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=40),
    st.builds(lambda c, n: c * n, st.sampled_from("xé漢"), st.integers(ENTRY_BYTES // 2, ENTRY_BYTES * 2)),
    # A record behind what was printed without a newline; the engine may cut it anywhere.
    st.builds(
        lambda head, record: head + record,
        st.one_of(st.just("waiting... "), st.integers(ENTRY_BYTES - 2, ENTRY_BYTES + 1).map(lambda n: "y" * n)),
        st.sampled_from([RECORD_MARK + '{"a": 1}', RECORD_MARK + '{"a":' + RECORD_MARK + '{"b": 2}']),
    ),
)
steps = st.one_of(st.just(0), st.integers(-500_000, 2_000_000), st.integers(SECOND // 2, 5 * SECOND))
cuts = st.lists(st.integers(0, 10**7), max_size=12)


class Line(tuple[Stream, str, list[Entry]]):
    """Stream, text, entries; shown by its entries alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(self[2])


@st.composite
def files(draw: st.DrawFn) -> list[Line]:
    """Lines and their entries; timestamps mostly grow, stand still for different lines, and step back a little."""
    now = START * SECOND
    made: list[Line] = []
    used: set[tuple[Stream, int, bytes]] = set()
    for stream, text, step in draw(st.lists(st.tuples(streams, texts, steps), max_size=14)):
        now += step
        # The very same entry of the very same nanosecond is how a repetition looks.
        while any((stream, now, entry.text) in used for entry in entries_of(stream, now, text.encode())):
            now += 1
        entries = entries_of(stream, now, text.encode())
        used.update((stream, now, entry.text) for entry in entries)
        made.append(Line((stream, text, entries)))
    return made


def shown(*lines: Line) -> list[tuple[Stream, str]]:
    """What of them is told: a record begins a line of its own."""
    return [
        (stream, part)
        for stream, text, _ in lines
        for number, part in enumerate(re.split("(?=\x1e\\{)", text))
        if part or (number == 0 and part == text)
    ]


@given(files(), cuts)
@settings(max_examples=150, deadline=None)
def test_any_cut_gives_every_line_once(file: list[Line], cut: list[int]) -> None:
    data = b"".join(entry.frame() for _, _, entries in file for entry in entries)
    reader = LogReader(LogCursor(), line_bytes=1 << 20)
    lines = feed(reader, data, cut)
    assert [(line.stream, line.text) for line in lines] == shown(*file)
    assert reader.finish() == []
    cursors = [line.cursor for line in lines]
    assert cursors == sorted(set(cursors))


@given(files(), st.integers(0, 14), st.booleans(), cuts)
@settings(max_examples=200, deadline=None)
def test_the_next_daemon_goes_on_after_any_line(file: list[Line], stored: int, each: bool, cut: list[int]) -> None:
    entries = [entry for _, _, some in file for entry in some]
    before = LogReader(LogCursor(), line_bytes=1 << 20).feed(b"".join(entry.frame() for entry in entries))
    stored = min(stored, len(before))
    after = before[stored - 1].cursor if stored else LogCursor()
    reader = LogReader(after, line_bytes=1 << 20)
    assert feed(reader, reading(entries, reader.since, each=each), cut) == before[stored:]


@given(files(), st.lists(st.integers(0, 10**7), min_size=1, max_size=4), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_reading_cut_anywhere_is_taken_up(file: list[Line], breaks: list[int], each: bool) -> None:
    entries = [entry for _, _, some in file for entry in some]
    reader = LogReader(LogCursor(), line_bytes=1 << 20)
    lines: list[RawLine] = []
    for point in breaks:
        data = reading(entries, reader.since, each=each)
        lines += reader.feed(data[: point % (len(data) + 1)])
        reader.reconnect()
    lines += reader.feed(reading(entries, reader.since, each=each))
    lines += reader.finish()
    assert [(line.stream, line.text) for line in lines] == shown(*file)


@given(files(), st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=150, deadline=None)
def test_what_a_rotation_repeats_is_told_once(file: list[Line], first: int, last: int) -> None:
    """After any line, a run of earlier entries comes again, as after a rotation."""
    ends = [0]
    for _, _, some in file:
        ends.append(ends[-1] + len(some))
    entries = [entry for _, _, some in file for entry in some]
    here = ends[last % len(ends)]
    begin = ends[first % (last % len(ends) + 1)]
    sent = [*entries[:here], *entries[begin:here], *entries[here:]]
    lines = LogReader(LogCursor(), line_bytes=1 << 20).feed(b"".join(entry.frame() for entry in sent))
    assert [(line.stream, line.text) for line in lines] == shown(*file)


@given(files(), st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=2), st.integers(0, 14), cuts)
@settings(max_examples=200, deadline=None)
def test_what_a_follower_was_not_told_is_found_while_it_is_kept(
    file: list[Line], gaps: list[tuple[int, int]], oldest: int, cut: list[int]
) -> None:
    missed = {number for first, last in gaps for number in range(first, last)}
    told = [entry for number, (_, _, some) in enumerate(file) if number not in missed for entry in some]
    kept = [entry for _, _, some in file[oldest:] for entry in some]
    reader = LogReader(LogCursor(), line_bytes=1 << 20)
    lines = [*reader.feed(stream_of(*told)), *reader.finish()]
    recheck = reader.recheck()
    if recheck is None:
        return
    data = stream_of(*kept)
    edges = [0, *sorted(point % (len(data) + 1) for point in cut), len(data)]
    late = [line for begin, end in itertools.pairwise(edges) for line in recheck.feed(data[begin:end])]
    late += recheck.finish()
    assert [(line.stream, line.text) for line in late] == shown(
        *(line for number, line in enumerate(file) if number in missed and number >= oldest)
    )
    cursors = [line.cursor for line in (*lines, *late)]
    assert cursors == sorted(set(cursors))


few = st.sampled_from(["", "---", "a", "b", "x" * (2 * ENTRY_BYTES)])
batches = st.lists(st.tuples(streams, st.lists(few, min_size=1, max_size=5), st.integers(1, 3 * SECOND)), max_size=6)


def stamped_at_once(made: list[tuple[Stream, list[str], int]]) -> list[Line]:
    """Each batch of lines is one of an engine's reads, and has one stamp; they differ from each other."""
    now = START * SECOND
    lines: list[Line] = []
    for stream, some, step in made:
        now += step
        lines += [Line((stream, text, entries_of(stream, now, text.encode()))) for text in some]
    return lines


@given(batches, st.integers(0, 30), st.lists(st.integers(0, 10**7), max_size=3), cuts, st.booleans())
@settings(max_examples=200, deadline=None)
def test_equal_lines_that_were_stamped_at_once_are_each_told(
    made: list[tuple[Stream, list[str], int]], stored: int, breaks: list[int], cut: list[int], each: bool
) -> None:
    """In one reading, over readings that are cut anywhere, and by the next daemon."""
    file = stamped_at_once(made)
    entries = [entry for _, _, some in file for entry in some]
    whole = feed(LogReader(LogCursor(), line_bytes=1 << 20, stamps_each=False), stream_of(*entries), cut)
    assert [(line.stream, line.text) for line in whole] == shown(*file)
    stored = min(stored, len(whole))
    reader = LogReader(whole[stored - 1].cursor if stored else LogCursor(), line_bytes=1 << 20, stamps_each=False)
    lines: list[RawLine] = []
    for point in breaks:
        data = reading(entries, reader.since, each=each)
        lines += reader.feed(data[: point % (len(data) + 1)])
        reader.reconnect()
    lines += reader.feed(reading(entries, reader.since, each=each))
    assert lines == whole[stored:]
    recheck = reader.recheck()
    assert recheck is not None
    assert recheck.feed(reading(entries, recheck.since, each=each)) == []


def test_what_is_told_again_from_before_is_told_once_also_where_lines_are_stamped_at_once() -> None:
    first, second = ([Entry(Stream.STDOUT, at(number), text) for text in (b"a\n", b"a\n", b"b\n")] for number in (1, 2))
    third = [Entry(Stream.STDOUT, at(3), b"a\n")] * 2
    data = stream_of(*first, *second, *first, *second, *third)
    texts = [line.text for line in LogReader(LogCursor(), stamps_each=False).feed(data)]
    assert texts == ["a", "a", "b"] * 2 + ["a", "a"]


def test_what_was_told_over_several_readings_is_known() -> None:
    entries = [Entry(Stream.STDOUT, at(number * SECOND), b"%d\n" % number) for number in range(20)]
    reader = LogReader(LogCursor())
    told = reader.feed(stream_of(*entries[:8]))
    reader.reconnect()
    assert reader.since is not None
    told += reader.feed(reading([*entries[:8], *entries[12:]], reader.since, each=False))
    recheck = reader.recheck()
    assert recheck is not None
    assert recheck.since is None
    assert [line.text for line in recheck.feed(stream_of(*entries))] == ["8", "9", "10", "11"]
    again = LogReader(told[3].cursor)
    assert next(line.text for line in again.feed(reading(entries, again.since, each=False))) == "4"
    after = again.recheck()
    assert after is not None
    assert after.since is not None
    assert after.feed(reading(entries, after.since, each=False)) == []


def test_a_recheck_is_bounded_and_takes_the_forgotten_for_told(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered, count = 2048, 7000
    monkeypatch.setattr("managedd.drivers.docker_logs.REMEMBERED_ENTRIES", remembered)
    entries = [Entry(Stream.STDOUT, at(number * 1000), b"%d\n" % number) for number in range(count)]
    reader = LogReader(LogCursor())
    gap = range(count - 1000, count - 500)
    reader.feed(stream_of(*(entry for number, entry in enumerate(entries) if number not in gap)))
    assert remembered <= len(reader._told._keys) <= 2 * remembered
    recheck = reader.recheck()
    assert recheck is not None
    assert [line.text for line in recheck.feed(stream_of(*entries))] == [str(number) for number in gap]


def test_what_needs_no_recheck() -> None:
    """An engine's file holds some 70 bytes beside each line, and up to six for some characters."""
    entries = [Entry(Stream.STDOUT, at(number), b'<"\x01">\n') for number in range(1000)]
    in_the_file = sum(70 + 6 * len(entry.text) for entry in entries)
    reader = LogReader(LogCursor())
    reader.feed(stream_of(*entries))
    assert reader.may_have_missed(in_the_file // 2)
    assert reader.may_have_missed(in_the_file)
    assert not reader.may_have_missed(10 * in_the_file)
    assert LogReader(LogCursor(1, 1)).may_have_missed(10 * in_the_file)


def stream_of(*entries: Entry) -> bytes:
    return b"".join(entry.frame() for entry in entries)


def at(number: int) -> int:
    return START * SECOND + number


def test_one_long_line_between_lines_of_the_other_stream() -> None:
    parts = entries_of(Stream.STDOUT, at(1), b"x" * 40_000)
    data = stream_of(
        parts[0], Entry(Stream.STDERR, at(2), b"between\n"), *parts[1:], Entry(Stream.STDOUT, at(3), b"after\n")
    )
    lines = LogReader(LogCursor()).feed(data)
    assert [(line.stream, line.text) for line in lines] == [
        (Stream.STDERR, "between"),
        (Stream.STDOUT, "x" * 40_000),
        (Stream.STDOUT, "after"),
    ]


def test_each_part_of_a_long_line_may_have_a_time_of_its_own() -> None:
    whole = b"y" * 40_000 + b"\n"
    parts = [Entry(Stream.STDOUT, at(n), whole[n * ENTRY_BYTES : (n + 1) * ENTRY_BYTES]) for n in range(3)]
    assert [line.text for line in LogReader(LogCursor()).feed(stream_of(*parts))] == ["y" * 40_000]


def test_a_line_beyond_the_bound_comes_in_several_and_resumes_between_them() -> None:
    text = "é" * 100_000
    data = stream_of(*entries_of(Stream.STDOUT, at(1), text.encode()), Entry(Stream.STDOUT, at(2), b"after\n"))
    lines = LogReader(LogCursor()).feed(data)
    assert "".join(line.text for line in lines[:-1]) == text
    assert all(len(line.text.encode()) <= 64 * 1024 for line in lines)
    assert lines[-1].text == "after"
    assert len(lines) == 5
    for number, line in enumerate(lines):
        assert [one.cursor for one in LogReader(line.cursor).feed(data)] == [one.cursor for one in lines[number + 1 :]]


def test_a_record_is_not_cut_where_a_plain_line_would_be() -> None:
    text = RECORD_MARK + "r" * 900_000
    assert [
        line.text for line in LogReader(LogCursor()).feed(stream_of(*entries_of(Stream.STDERR, at(1), text.encode())))
    ] == [text]


def a_record(message: str) -> bytes:
    fields = {"name": "a", "level": 40, "message": message, "created_us": 1, "flow_run_id": None, "task_run_id": None}
    return f"{RECORD_MARK}{json.dumps(fields)}\n".encode()


def test_a_record_behind_a_progress_bar_is_one() -> None:
    data = stream_of(
        Entry(Stream.STDERR, at(1), b"\r 10%|#  | 1/10\r 50%|#####  | 5/10" + a_record("one")),
        # What a bar clears before something else is printed.
        Entry(Stream.STDERR, at(2), b"\r             \r" + a_record("two")),
        Entry(Stream.STDERR, at(3), b"\x1e{a brace\n"),
        Entry(Stream.STDOUT, at(4), b"waiting... \x1e not a record\n"),
    )
    lines = LogReader(LogCursor()).feed(data)
    records = [parse_record(line.text) for line in lines]
    assert [line.text if record is None else record.message for line, record in zip(lines, records, strict=True)] == [
        " 50%|#####  | 5/10", "one", "two", "\x1e{a brace", "waiting... \x1e not a record",
    ]  # fmt: skip
    assert [record is not None for record in records] == [False, True, True, False, False]


def test_a_record_behind_an_entry_that_ends_no_line_is_told_once_from_anywhere() -> None:
    """Some engines store what was printed without a newline as an entry of its own."""
    parts = [
        Entry(Stream.STDERR, at(1), b"waiting... "),
        Entry(Stream.STDOUT, at(2), b"between\n"),
        Entry(Stream.STDERR, at(3), a_record("one")),
        Entry(Stream.STDERR, at(3), b"more... "),
        Entry(Stream.STDERR, at(3), a_record("two")),
        Entry(Stream.STDERR, at(4), b"after\n"),
    ]
    lines = LogReader(LogCursor()).feed(stream_of(*parts))
    texts = [line.text if (record := parse_record(line.text)) is None else record.message for line in lines]
    assert texts == ["between", "waiting... ", "one", "more... ", "two", "after"]
    for number, line in enumerate(lines):
        again = LogReader(line.cursor)
        assert again.feed(reading(parts, again.since, each=True)) == lines[number + 1 :]
    for cut in range(len(parts)):
        reader = LogReader(LogCursor())
        told = reader.feed(stream_of(*parts[:cut]))
        reader.reconnect()
        assert told + reader.feed(reading(parts, reader.since, each=True)) == lines


def test_memory_is_bounded_without_any_newline() -> None:
    reader = LogReader(LogCursor())
    frame = Entry(Stream.STDOUT, at(1), b"z" * ENTRY_BYTES).frame()
    longest = 0
    for _ in range(1000):
        reader.feed(frame)
        longest = max(longest, *(len(partial.bytes) for partial in reader._partial.values()))
    assert longest <= 64 * 1024


def test_a_whole_file_may_be_told_again_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    count = REMEMBERED_ENTRIES // 8
    monkeypatch.setattr("managedd.drivers.docker_logs.REMEMBERED_ENTRIES", count)
    frames = [Entry(Stream.STDOUT, at(number), b"%d\n" % number).frame() for number in range(3 * count)]
    reader = LogReader(LogCursor())
    told = len(reader.feed(b"".join(frames[: 2 * count])))
    told += len(reader.feed(b"".join(frames[count : 2 * count])))
    told += len(reader.feed(b"".join(frames[2 * count :])))
    told += len(reader.feed(b"".join(frames[2 * count :])))
    assert told == 3 * count
    remembered = [array for entries in (reader._seen, reader._told) for array in (entries._keys, entries._tops)]
    assert sum(sys.getsizeof(array) for array in remembered) <= 24 * count


def test_a_progress_bar_shows_what_it_showed_last() -> None:
    bar = b"".join(b"\r%3d%%" % n for n in range(10_000))
    data = stream_of(
        *entries_of(Stream.STDERR, at(1), bar),
        Entry(Stream.STDOUT, at(2), b"windows\r\n"),
        Entry(Stream.STDOUT, at(3), b"50%\r100%\r\n"),
        Entry(Stream.STDOUT, at(4), b"\r\n"),
    )
    assert [line.text for line in LogReader(LogCursor()).feed(data)] == ["9999%", "windows", "100%", ""]


def test_bytes_that_are_no_text() -> None:
    data = stream_of(Entry(Stream.STDOUT, at(1), b"\xff\xfe ok \xc3\n"), Entry(Stream.STDERR, at(2), "grün\n".encode()))
    assert [line.text for line in LogReader(LogCursor()).feed(data)] == ["\ufffd\ufffd ok \ufffd", "grün"]


def test_the_last_line_needs_no_newline_and_comes_once() -> None:
    data = stream_of(
        Entry(Stream.STDOUT, at(1), b"one\n"), Entry(Stream.STDERR, at(2), b"err"), Entry(Stream.STDOUT, at(3), b"out")
    )
    reader = LogReader(LogCursor())
    lines = [*reader.feed(data), *reader.finish()]
    assert sorted(line.text for line in lines) == ["err", "one", "out"]
    for number, line in enumerate(lines):
        again = LogReader(line.cursor)
        assert [*again.feed(data), *again.finish()] == lines[number + 1 :]


def test_a_clock_set_back_loses_nothing() -> None:
    hour = 3600 * SECOND
    entries = [
        Entry(Stream.STDOUT, at(0), b"before\n"),
        *(Entry(Stream.STDOUT, at(n) - hour, b"back %d\n" % n) for n in range(3)),
    ]
    reader = LogReader(LogCursor())
    lines = reader.feed(stream_of(*entries[:2]))
    reader.reconnect()
    lines += reader.feed(reading(entries, reader.since, each=True))
    assert [line.text for line in lines] == ["before", "back 0", "back 1", "back 2"]


@pytest.mark.parametrize("each", [True, False])
def test_a_clock_set_back_loses_nothing_of_the_next_daemons_reading(each: bool) -> None:
    hour = 3600 * SECOND
    before = [Entry(Stream.STDOUT, at(n * SECOND), b"before %d\n" % n) for n in range(5)]
    back = [Entry(Stream.STDOUT, at(n * SECOND) - hour, b"back %d\n" % n) for n in range(5)]
    lines = LogReader(LogCursor()).feed(stream_of(*before, *back))
    assert len(lines) == 10
    for number, line in enumerate(lines):
        reader = LogReader(line.cursor)
        reader.clock_shows((START + 5 - 3600) * 1_000_000)
        assert reader.feed(reading([*before, *back], reader.since, each=each)) == lines[number + 1 :]


@pytest.mark.parametrize("reconnects", [True, False])
@pytest.mark.parametrize(("kept_from", "is_gap"), [(0, False), (4, False), (5, True), (8, True)])
def test_what_the_engine_has_not_kept_until_it_is_read_is_a_gap(reconnects: bool, kept_from: int, is_gap: bool) -> None:
    file = [Entry(Stream.STDOUT, at(number * 10 * SECOND), b"%d\n" % number) for number in range(10)]
    reader = LogReader(LogCursor())
    told = reader.feed(stream_of(*file[:5]))
    if reconnects:
        reader.reconnect()
    else:
        reader = LogReader(told[-1].cursor)
    lines = reader.feed(reading(file[kept_from:], reader.since, each=True))
    assert [line.text for line in lines] == [str(number) for number in range(max(5, kept_from), 10)]
    assert [line.follows_gap for line in (*told, *lines)] == [is_gap and line is lines[0] for line in (*told, *lines)]


def test_a_clock_that_goes_on_needs_no_reading_from_the_first_line() -> None:
    reader = LogReader(LogCursor(at(0), 1))
    reader.clock_shows((START - 1) * 1_000_000)
    assert reader.since == f"{START - 2}.000000000"
    reader.clock_shows((START - 3) * 1_000_000)
    assert reader.since is None


def test_other_spellings_of_time() -> None:
    for spelling in ("2026-11-22T07:41:34.5+01:00 ", "2026-11-22T06:41:34.500000000Z ", "2026-11-22T01:11:34.5-05:30 "):
        payload = spelling.encode() + b"hello\n"
        lines = LogReader(LogCursor()).feed(bytes([1, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload)
        assert lines == [
            RawLine(stream=Stream.STDOUT, cursor=LogCursor(1_795_329_694 * SECOND + SECOND // 2, 1), text="hello")
        ]


def test_since_is_exact_to_the_nanosecond() -> None:
    assert LogReader(LogCursor()).since is None
    assert LogReader(LogCursor(START * SECOND + 7, 3)).since == f"{START - 2}.000000007"


def test_what_is_no_log_stream_is_refused() -> None:
    with pytest.raises(FrameError):
        LogReader(LogCursor()).feed(b"a plain text answer\n")
