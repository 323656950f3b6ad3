"""From the engine's log stream to whole lines, each once and in order: pure, fed with bytes cut anywhere.

What engines do, and what follows from it:

- A stream is frames of 8 bytes of head and one entry; an entry is a line, or 16 KiB of a longer one whose last part ends the line.
- Every entry begins with a timestamp. Those of one long line may all carry that of its first; only the first is of use.
- Two streams are stamped side by side and stored one after the other, so timestamps may step back a little, and far back with the
  host's clock. A cursor is therefore the highest timestamp so far and how many entries came since: it grows with the order in the file.
- `since` is inclusive. A reading that begins a little before a cursor counts the same way and knows what it has passed.
- A follower over a log rotation may be told entries again, or nothing more while there is more.
"""

from __future__ import annotations

import codecs
import re
from array import array
from bisect import bisect_left
from datetime import UTC, datetime
from typing import Final

from managedd.model.logs import RECORD_MARK, RECORD_MAX_CHARS, LogCursor, RawLine, Stream

ENTRY_BYTES: Final = 16 * 1024
"""Engines cut longer lines into entries of this size."""
FRAME_MAX_BYTES: Final = 16 * 1024 * 1024
OVERLAP_NS: Final = 2_000_000_000
"""How far before the cursor a reading begins: more than two streams' entries can be out of order."""
REMEMBERED_ENTRIES: Final = 128 * 1024
"""At least so many, at most twice, with 16 bytes each: about as many as one file of the engine's holds, which it may tell once more."""
SEARCHED_ENTRIES: Final = 4096
"""How many entries may have come between one and another that is stamped later, for it to be recognised."""
_MARK: Final = RECORD_MARK.encode()
_STREAMS: Final = {0: Stream.STDOUT, 1: Stream.STDOUT, 2: Stream.STDERR}
_STAMP: Final = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d) ")


class FrameError(ValueError):
    """The bytes are no log stream."""


class LogReader:
    """One execution's reader: keeps half-read lines over reconnections, and memory bounded whatever is printed."""

    def __init__(self, after: LogCursor, *, line_bytes: int = 64 * 1024) -> None:
        self._line_bytes = line_bytes
        self._after = after
        self._rebuild = True
        """The first reading goes through what was delivered before, by another reader, to see which lines were half printed."""
        self._reached = LogCursor()
        self._partial = {stream: _Partial() for stream in Stream}
        self._stepped_back = False
        self._second = (b"", 0)
        self._begin()

    def _begin(self) -> None:
        self._bytes = bytearray()
        self._highest = 0
        self._count = 0
        self._open: dict[Stream, int | None] = {}
        """Of each stream whose last entry ended no line, its time: the next entry may look just the same."""
        self._keys = array("q")
        """A hash of each entry that is remembered."""
        self._tops = array("q")
        """The highest time up to each of them: sorted, whatever the entries are."""
        self._replay: int | None = None

    @property
    def since(self) -> str | None:
        """Where the next reading should begin, in the engine's spelling; None: at the very first line."""
        reached = max(self._reached, self._after)
        if reached.timestamp_ns == 0 or self._stepped_back:
            return None
        begin = min(
            [reached.timestamp_ns, *(partial.timestamp_ns for partial in self._partial.values() if partial.bytes)]
        )
        begin = max(begin - OVERLAP_NS, 0)
        return f"{begin // 1_000_000_000}.{begin % 1_000_000_000:09d}"

    def reconnect(self) -> None:
        """The next bytes are those of a new reading that began at `since`."""
        if self._reached > self._after:
            self._after = self._reached
            self._rebuild = False
        elif self._rebuild:
            # Cut before it was through with the old: what it knows of half lines will come again.
            for partial in self._partial.values():
                partial.clear()
        self._begin()

    def feed(self, data: bytes) -> list[RawLine]:
        """The lines that `data` completed. Raises FrameError when it is no log stream."""
        self._bytes += data
        lines: list[RawLine] = []
        at = 0
        while len(self._bytes) - at >= 8:
            head = self._bytes[at : at + 8]
            size = int.from_bytes(head[4:], "big")
            if head[0] not in _STREAMS or head[1:4] != b"\0\0\0" or size > FRAME_MAX_BYTES:
                raise FrameError(f"the engine's log stream has a frame that begins with {bytes(head).hex()}")
            if len(self._bytes) - at < 8 + size:
                break
            self._entry(_STREAMS[head[0]], bytes(self._bytes[at + 8 : at + 8 + size]), lines)
            at += 8 + size
        del self._bytes[:at]
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
                    lines.append(RawLine(stream=stream, cursor=cursor, text=partial.take(whole=True)))
                partial.clear()
        self._reached = max(self._reached, cursor)
        return lines

    def _entry(self, stream: Stream, payload: bytes, lines: list[RawLine]) -> None:
        stamp = _STAMP.match(payload)
        timestamp_ns, start = (self._timestamp(stamp), stamp.end()) if stamp else (self._highest, 0)
        if self._told_again(stream, timestamp_ns, payload):
            return
        while start < len(payload):
            newline = payload.find(b"\n", start, start + ENTRY_BYTES)
            end = newline + 1 if newline >= 0 else min(start + ENTRY_BYTES, len(payload))
            self._part(stream, timestamp_ns, payload[start:end], lines)
            start = end

    def _part(self, stream: Stream, timestamp_ns: int, part: bytes, lines: list[RawLine]) -> None:
        if timestamp_ns > self._highest:
            self._highest, self._count = timestamp_ns, 1
        else:
            self._count += 1
        here = LogCursor(self._highest, self._count)
        passed = here <= self._after
        if passed and not self._rebuild:
            return
        self._reached = here
        partial = self._partial[stream]
        partial.add(timestamp_ns, part)
        whole = part.endswith(b"\n")
        if not whole:
            limit = RECORD_MAX_CHARS if partial.bytes.startswith(_MARK) else self._line_bytes
            if len(partial.bytes) + ENTRY_BYTES <= limit and here != self._after:
                return
        text = partial.take(whole=whole)
        if not passed:
            lines.append(RawLine(stream=stream, cursor=here, text=text))

    def _told_again(self, stream: Stream, timestamp_ns: int, payload: bytes) -> bool:
        """Whether this is an entry of this very reading once more: after a rotation the engine begins a file anew."""
        key = hash((timestamp_ns, stream, payload))
        if self._replay is not None:
            if self._keys[self._replay] == key:
                self._go_on_after(self._replay)
                return True
            self._replay = None
        continues = self._open.get(stream) == timestamp_ns
        if timestamp_ns <= self._highest and not continues:
            before = self._find(timestamp_ns, key)
            if before is not None:
                self._go_on_after(before)
                return True
            if timestamp_ns < self._highest - OVERLAP_NS:
                self._stepped_back = True
        self._open[stream] = None if payload.endswith(b"\n") else timestamp_ns
        if len(self._keys) == 2 * REMEMBERED_ENTRIES:
            del self._keys[:REMEMBERED_ENTRIES], self._tops[:REMEMBERED_ENTRIES]
        self._keys.append(key)
        self._tops.append(max(self._highest, timestamp_ns))
        return False

    def _find(self, timestamp_ns: int, key: int) -> int | None:
        first = bisect_left(self._tops, timestamp_ns)
        last = min(first + SEARCHED_ENTRIES, len(self._keys))
        return next((at for at in range(first, last) if self._keys[at] == key), None)

    def _go_on_after(self, told: int) -> None:
        """What comes next is what came after the remembered entry, unless that was the last."""
        self._replay = told + 1 if told + 1 < len(self._keys) else None

    def _timestamp(self, stamp: re.Match[bytes]) -> int:
        second, fraction, zone = stamp.groups()
        if self._second[0] != second + zone:
            moment = datetime.fromisoformat((second + zone).decode().replace("Z", "+00:00")).astimezone(UTC)
            self._second = (second + zone, int(moment.timestamp()))
        return self._second[1] * 1_000_000_000 + (int(fraction.ljust(9, b"0")) if fraction else 0)


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

    def take(self, *, whole: bool) -> str:
        """The text so far; when the line goes on, a character that is half read stays for the next part."""
        text = self._decoder.decode(bytes(self.bytes), final=whole)
        if whole:
            self._decoder.reset()
            text = text.removesuffix("\n").rstrip("\r")
        self.bytes.clear()
        return text

    def clear(self) -> None:
        self.bytes.clear()
        self.is_open = False
        self._decoder.reset()
