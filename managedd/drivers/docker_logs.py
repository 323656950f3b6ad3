"""From the engine's log stream to whole lines, each once and in order: pure, fed with bytes cut anywhere.

What engines do, and what follows from it:

- A stream is frames of 8 bytes of head and one entry; an entry is a line, or 16 KiB of a longer one whose last part ends the line.
- Every entry begins with a timestamp. Those of one long line may all carry that of its first; only the first is of use.
- Two streams are stamped side by side and stored one after the other, so timestamps may step back a little, and far back with the
  host's clock. A cursor is therefore the highest timestamp so far and how many entries came since: it grows with the order in the file.
- A record that is printed while a line is open, as a progress bar's always is, stands behind it in the same entry.
- `since` is inclusive, and engines pass over every entry that is stamped earlier, also those of a clock that was set back. A reading that begins a little before a cursor counts the same way and knows what it has passed.
- A follower over a log rotation may be told entries again, or nothing more while there is more. One that is slower than the rotation is
  not told a whole file of them: a `Recheck` after the end finds what is still there.
- Docker stamps each entry by itself, to the nanosecond: one that is like another of the same stamp and stream was told again. Podman's
  monitor stamps all that it reads at once alike: there equal lines of one stamp are several.
"""

from __future__ import annotations

import codecs
import re
from array import array
from bisect import bisect_left
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from managedd.model.logs import RECORD_MARK, RECORD_MAX_CHARS, LogCursor, RawLine, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRY_BYTES: Final = 16 * 1024
"""Engines cut longer lines into entries of this size."""
FRAME_MAX_BYTES: Final = 16 * 1024 * 1024
OVERLAP_NS: Final = 2_000_000_000
"""How far before the cursor a reading begins: more than two streams' entries can be out of order."""
REMEMBERED_ENTRIES: Final = 128 * 1024
"""At least so many, at most a quarter more, with 8 bytes each: an engine may tell its newest file once more, or as much of it as there is."""
SEARCHED_ENTRIES: Final = 4096
"""How many entries may have come between one and another that is stamped later, for it to be recognised."""
NEAR_ENTRIES: Final = 256
"""The same for one of the entries that a recheck goes through, of which many may not be known."""
STRIDE_ENTRIES: Final = 64
"""Of how many entries one is remembered with its time."""
_ESCAPED: Final = bytes(range(32)) + b'"\\<>&'
"""What takes up to six bytes in an engine's file. The head of each entry has enough of it for what the file has beside the text."""
_MARK: Final = RECORD_MARK.encode()
_RECORD: Final = _MARK + b"{"
_STREAMS: Final = {0: Stream.STDOUT, 1: Stream.STDOUT, 2: Stream.STDERR}
_STAMP: Final = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d) ")


class FrameError(ValueError):
    """The bytes are no log stream."""


class LogReader:
    """One execution's reader: keeps half-read lines over reconnections, and memory bounded whatever is printed."""

    def __init__(self, after: LogCursor, *, line_bytes: int = 64 * 1024, stamps_each: bool = True) -> None:
        self._line_bytes = line_bytes
        self._stamps_each = stamps_each
        """Whether the engine stamps each entry, and not all that it reads at once."""
        self._after = after
        self._began_at = after
        self._told = _Entries()
        self._told_bytes = 0
        self._rebuild = True
        """The first reading goes through what was delivered before, by another reader, to see which lines were half printed."""
        self._reached = LogCursor()
        self._partial = {stream: _Partial() for stream in Stream}
        self._stepped_back = self._reads_all = False
        self._is_behind_gap = False
        self._times = _Times()
        self._begin()

    def _begin(self) -> None:
        self._bytes = bytearray()
        self._highest = 0
        self._count = 0
        self._open: dict[Stream, int | None] = {}
        """Of each stream whose last entry ended no line, its time: the next entry may look just the same."""
        self._seen = _Entries()
        """Those of this reading."""
        self._last_ns = 0
        """The time of the last of them."""
        self._replay: int | None = None

    @property
    def since(self) -> str | None:
        """Where the next reading should begin, in the engine's spelling; None: at the very first line."""
        begin = self._begin_ns()
        return None if begin is None else _spelled(begin)

    def clock_shows(self, time_us: int) -> None:
        """The engine's clock shows that time. When it was set back, nothing that is printed now comes to who reads from `since` on, so that
        the next reading begins at the very first line."""
        begin = self._begin_ns()
        self._reads_all |= begin is not None and time_us * 1000 < begin

    def _begin_ns(self) -> int | None:
        reached = max(self._reached, self._after)
        if reached.timestamp_ns == 0 or self._stepped_back or self._reads_all:
            return None
        open_since = (partial.timestamp_ns for partial in self._partial.values() if partial.bytes)
        return min([reached.timestamp_ns, *open_since]) - OVERLAP_NS

    def may_have_missed(self, file_bytes: int) -> bool:
        """Whether there may have been a rotation while it followed, when an engine's files are so large: none is passed over before one
        was read to its end. A reader that began in the middle of one can't tell."""
        return self._began_at > LogCursor() or 2 * self._told_bytes >= file_bytes

    def recheck(self) -> Recheck | None:
        """For one more reading, of all that the engine has kept, after `finish`; None when entries can't be told apart by their times."""
        return None if self._stepped_back else Recheck(self._told, self._began_at, self._reached, self._line_bytes)

    def reconnect(self) -> None:
        """The next bytes are those of a new reading that began at `since`."""
        if self._reached > self._after:
            self._after = self._reached
            self._rebuild = False
        elif self._rebuild:
            # Cut before it was through with the old: what it knows of half lines will come again.
            for partial in self._partial.values():
                partial.clear()
            self._told = _Entries()
        self._begin()

    def feed(self, data: bytes) -> list[RawLine]:
        """The lines that `data` completed. Raises FrameError when it is no log stream."""
        self._told_bytes += len(data) + 5 * (len(data) - len(data.translate(None, _ESCAPED)))
        lines: list[RawLine] = []
        for stream, payload in _entries(self._bytes, data):
            self._entry(stream, payload, lines)
        return lines

    def finish(self) -> list[RawLine]:
        """The container has ended and everything was fed: what it printed last without a newline."""
        lines: list[RawLine] = []
        # Beyond every line, also of the reading that follows when the daemon restarts right now.
        cursor = max(self._reached, self._after) if not self._rebuild else self._reached
        for stream, partial in self._partial.items():
            if partial.bytes:
                cursor = LogCursor(cursor.timestamp_ns, cursor.ordinal + 1)
                if cursor > self._after:
                    lines.append(self._line(stream, cursor, partial.take(whole=True)))
                partial.clear()
        self._reached = max(self._reached, cursor)
        return lines

    def _entry(self, stream: Stream, payload: bytes, lines: list[RawLine]) -> None:
        timestamp_ns, start = self._times.of(payload)
        if timestamp_ns is None:
            timestamp_ns = self._highest
        if self._highest == 0 and timestamp_ns > self._after.timestamp_ns > 0:
            # Otherwise the reading would begin with what was read last, or before it.
            self._is_behind_gap = True
        key = hash((timestamp_ns, stream, payload))
        is_open = self._open.get(stream) is not None
        if self._told_again(stream, timestamp_ns, payload, key):
            return
        is_new = False
        for part, breaks_off in _parts(payload, start, is_open=is_open):
            is_new |= self._part(stream, timestamp_ns, part, lines, breaks_off=breaks_off)
        if is_new:
            self._told.add(timestamp_ns, key)

    def _part(self, stream: Stream, timestamp_ns: int, part: bytes, lines: list[RawLine], *, breaks_off: bool) -> bool:
        """Whether it was not passed over as told by an earlier reading."""
        if timestamp_ns > self._highest:
            self._highest, self._count = timestamp_ns, 1
        else:
            self._count += 1
        here = LogCursor(self._highest, self._count)
        passed = here <= self._after
        if passed and not self._rebuild:
            return False
        self._reached = here
        partial = self._partial[stream]
        partial.add(timestamp_ns, part)
        if breaks_off:
            text = partial.break_off()
        elif partial.is_open and partial.has_room(self._line_bytes) and here != self._after:
            return True
        else:
            text = partial.take(whole=not partial.is_open)
        if not passed and (text or not breaks_off):
            lines.append(self._line(stream, here, text))
        return True

    def _line(self, stream: Stream, cursor: LogCursor, text: str) -> RawLine:
        follows_gap, self._is_behind_gap = self._is_behind_gap, False
        return RawLine(stream=stream, cursor=cursor, text=text, follows_gap=follows_gap)

    def _told_again(self, stream: Stream, timestamp_ns: int, payload: bytes, key: int) -> bool:
        """Whether this is an entry of this very reading once more: after a rotation the engine begins a file anew."""
        if self._replay is not None:
            if self._seen.is_at(self._replay, key):
                self._go_on_after(self._replay)
                return True
            self._replay = None
        continues = self._open.get(stream) == timestamp_ns
        is_one_of_many = timestamp_ns == self._last_ns and not self._stamps_each
        if timestamp_ns <= self._highest and not continues and not is_one_of_many:
            before = self._seen.find(timestamp_ns, key, SEARCHED_ENTRIES)
            if before is not None:
                self._go_on_after(before)
                return True
            if timestamp_ns < self._highest - OVERLAP_NS:
                self._stepped_back = True
        self._open[stream] = None if payload.endswith(b"\n") else timestamp_ns
        self._last_ns = timestamp_ns
        self._seen.add(timestamp_ns, key)
        return False

    def _go_on_after(self, told: int) -> None:
        """What comes next is what came after the remembered entry, unless that was the last."""
        self._replay = told + 1 if told + 1 < len(self._seen) else None


class Recheck:
    """Goes through all that an engine has kept of a container that has ended, for lines that its follower was not told.

    They come late, but once: their cursors are beyond those of all the others. Told and kept are in the same order, so that most of the
    kept is recognised by its place; what is older than what is remembered counts as told.
    """

    def __init__(self, told: _Entries, began_at: LogCursor, reached: LogCursor, line_bytes: int) -> None:
        self._told = told
        self._began_at = began_at
        self._cursor = reached
        self._line_bytes = line_bytes
        self._next = 0
        self._bytes = bytearray()
        self._times = _Times()
        self._partial = {stream: _Partial() for stream in Stream}

    @property
    def since(self) -> str | None:
        """Where the reading should begin, in the engine's spelling: where the very first of its follower began."""
        return _spelled(self._began_at.timestamp_ns - OVERLAP_NS) if self._began_at > LogCursor() else None

    def feed(self, data: bytes) -> list[RawLine]:
        """The lines that `data` completed and nobody was told. Raises FrameError when it is no log stream."""
        lines: list[RawLine] = []
        for stream, payload in _entries(self._bytes, data):
            timestamp_ns, start = self._times.of(payload)
            if timestamp_ns is None or self._is_known(timestamp_ns, hash((timestamp_ns, stream, payload))):
                self._close(stream, lines)
                continue
            partial = self._partial[stream]
            for part, breaks_off in _parts(payload, start, is_open=partial.is_open):
                partial.add(timestamp_ns, part)
                if breaks_off:
                    if text := partial.break_off():
                        lines.append(self._line(stream, text))
                elif not (partial.is_open and partial.has_room(self._line_bytes)):
                    lines.append(self._line(stream, partial.take(whole=not partial.is_open)))
        return lines

    def finish(self) -> list[RawLine]:
        """Everything was fed: what is left of lines without a newline."""
        lines: list[RawLine] = []
        for stream in self._partial:
            self._close(stream, lines)
        return lines

    def _is_known(self, timestamp_ns: int, key: int) -> bool:
        if self._told.is_at(self._next, key):
            self._next += 1
            return True
        if self._told.is_older(timestamp_ns):
            return True
        found = self._told.find(timestamp_ns, key, NEAR_ENTRIES)
        if found is None:
            return False
        self._next = max(self._next, found + 1)
        return True

    def _close(self, stream: Stream, lines: list[RawLine]) -> None:
        partial = self._partial[stream]
        if partial.bytes:
            lines.append(self._line(stream, partial.take(whole=True)))
        partial.clear()

    def _line(self, stream: Stream, text: str) -> RawLine:
        self._cursor = LogCursor(self._cursor.timestamp_ns, self._cursor.ordinal + 1)
        return RawLine(stream=stream, cursor=self._cursor, text=text)


class _Entries:
    """Entries in the order in which they were told: at least the last `REMEMBERED_ENTRIES` of them, at most a quarter more."""

    def __init__(self) -> None:
        self._keys = array("q")
        """A hash of each."""
        self._tops = array("q")
        """The highest time up to every `STRIDE_ENTRIES`th of them."""
        self._top = 0
        self._forgot = False

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, timestamp_ns: int, key: int) -> None:
        """The entry is remembered, in the place of the oldest ones."""
        spare = REMEMBERED_ENTRIES // 4
        if len(self._keys) == REMEMBERED_ENTRIES + spare:
            del self._keys[:spare], self._tops[: spare // STRIDE_ENTRIES]
            self._forgot = True
        self._top = max(self._top, timestamp_ns)
        if len(self._keys) % STRIDE_ENTRIES == 0:
            self._tops.append(self._top)
        self._keys.append(key)

    def is_at(self, place: int, key: int) -> bool:
        """Whether that entry is the one at that place."""
        return place < len(self._keys) and self._keys[place] == key

    def is_older(self, timestamp_ns: int) -> bool:
        """Whether an entry of that time may have been forgotten."""
        return self._forgot and timestamp_ns <= self._tops[0]

    def find(self, timestamp_ns: int, key: int, within: int) -> int | None:
        """The place of that entry: so many others may have come between it and the first that is stamped so late."""
        first = max(0, bisect_left(self._tops, timestamp_ns) - 1) * STRIDE_ENTRIES
        try:
            return self._keys.index(key, first, min(first + STRIDE_ENTRIES + within, len(self._keys)))
        except ValueError:
            return None


class _Times:
    """Reads the stamps of entries; the second that they share is read once."""

    def __init__(self) -> None:
        self._second = (b"", 0)

    def of(self, payload: bytes) -> tuple[int | None, int]:
        """The time of an entry, and where its text begins; None when it has no stamp."""
        stamp = _STAMP.match(payload)
        if stamp is None:
            return None, 0
        second, fraction, zone = stamp.groups()
        if self._second[0] != second + zone:
            moment = datetime.fromisoformat((second + zone).decode().replace("Z", "+00:00")).astimezone(UTC)
            self._second = (second + zone, int(moment.timestamp()))
        return self._second[1] * 1_000_000_000 + (int(fraction.ljust(9, b"0")) if fraction else 0), stamp.end()


class _Partial:
    """The part of a stream's present line that has been read."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.is_open = False
        """The line goes on, also when what was read of it is delivered already."""
        self.timestamp_ns = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, timestamp_ns: int, part: bytes) -> None:
        if not self.is_open:
            self.timestamp_ns = timestamp_ns
        self.is_open = not part.endswith(b"\n")
        self.bytes += part
        # A progress bar redraws one line for hours: only what it showed last is kept.
        if b"\r" in self.bytes:
            last = bytes(self.bytes).rstrip(b"\r\n").rfind(b"\r")
            del self.bytes[: last + 1]

    def has_room(self, line_bytes: int) -> bool:
        """Whether it may grow by one more entry; a record may be longer than a plain line."""
        limit = RECORD_MAX_CHARS if self.bytes.startswith(_MARK) else line_bytes
        return len(self.bytes) + ENTRY_BYTES <= limit

    def take(self, *, whole: bool) -> str:
        """The text so far; when the line goes on, a character that is half read stays for the next part."""
        text = self._decoder.decode(bytes(self.bytes), final=whole)
        if whole:
            self._decoder.reset()
            text = text.removesuffix("\n").rstrip("\r")
        self.bytes.clear()
        return text

    def break_off(self) -> str:
        """The text of a line that a record ends; empty when there is none, or the record would be written over it."""
        text = "" if self.bytes.endswith(b"\r") else self.take(whole=True)
        self.clear()
        return text

    def clear(self) -> None:
        self.bytes.clear()
        self.is_open = False
        self._decoder.reset()


def _entries(held: bytearray, data: bytes) -> Iterator[tuple[Stream, bytes]]:
    """The entries that are whole with `data`; the rest is held. Raises FrameError."""
    held += data
    at = 0
    try:
        while len(held) - at >= 8:
            head = held[at : at + 8]
            size = int.from_bytes(head[4:], "big")
            if head[0] not in _STREAMS or head[1:4] != b"\0\0\0" or size > FRAME_MAX_BYTES:
                raise FrameError(f"the engine's log stream has a frame that begins with {bytes(head).hex()}")
            if len(held) - at < 8 + size:
                break
            yield _STREAMS[head[0]], bytes(held[at + 8 : at + 8 + size])
            at += 8 + size
    finally:
        del held[:at]


def _parts(payload: bytes, start: int, *, is_open: bool) -> Iterator[tuple[bytes, bool]]:
    """Lines, and parts of such as are longer than an entry of an engine that cuts them; and of each whether a record breaks it off.

    A record that is printed while a line `is_open` begins a line of its own, whose mark and brace may be cut apart.
    """
    while start < len(payload):
        newline = payload.find(b"\n", start, start + ENTRY_BYTES)
        end = newline + 1 if newline >= 0 else min(start + ENTRY_BYTES, len(payload))
        first = start if is_open else start + 1
        record = payload.find(_MARK, first, end)
        if record >= 0:
            # Few lines have another one.
            record = payload.find(_RECORD, record, end)
            if record < 0 and payload.endswith(_MARK, first, end):
                record = end - 1
        if record >= 0:
            yield payload[start:record], True
            start, is_open = record, False
        else:
            yield payload[start:end], False
            start, is_open = end, newline < 0


def _spelled(time_ns: int) -> str:
    """A time as an engine takes it."""
    time_ns = max(time_ns, 0)
    return f"{time_ns // 1_000_000_000}.{time_ns % 1_000_000_000:09d}"
