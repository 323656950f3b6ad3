"""What a connection keeps of its statements is bounded, whatever they are given."""

from __future__ import annotations

import ctypes
import gc
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from managedd.store import statements
from managedd.store.statements import CACHED_STATEMENTS, KEPT_BYTES, KeptStatements

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def connection() -> Iterator[KeptStatements]:
    with closing(sqlite3.connect(":memory:", isolation_level=None, factory=KeptStatements)) as made:
        yield made


def kept() -> int:
    """How many statements are kept in this process."""
    gc.collect()
    return sum(type(thing).__name__ == "Statement" for thing in gc.get_objects())


def test_of_very_many_statements_some_are_kept(connection: KeptStatements) -> None:
    before = kept()
    for number in range(CACHED_STATEMENTS * 3):
        connection.execute(f"SELECT {number} + 1").fetchall()
    assert 0 < kept() - before <= CACHED_STATEMENTS


@pytest.mark.parametrize("as_text", [True, False])
def test_what_is_bound_is_let_go_when_it_is_much(connection: KeptStatements, as_text: bool) -> None:
    text = "x" * (KEPT_BYTES // 10)
    value: str | bytes = text if as_text else text.encode()
    held = []
    for number in range(50):
        assert connection.execute(f"SELECT {number}, length(?)", (value,)).fetchone() == (number, len(text))
        held.append(connection.held_bytes)
    assert max(held) <= KEPT_BYTES
    assert held.count(len(text)) == 5, held


def test_long_statements_count_as_what_they_are_compiled_to(connection: KeptStatements) -> None:
    for number in range(120):
        terms = " OR ".join(f"value = {number + term}" for term in range(300))
        connection.execute(f"SELECT value FROM json_each('[]') WHERE {terms}").fetchall()
        assert connection.held_bytes <= KEPT_BYTES
    assert connection.held_bytes > 0


def test_what_is_bound_counts_in_bytes(connection: KeptStatements) -> None:
    connection.execute("SELECT ?", ("€" * 10_000,)).fetchone()
    assert connection.held_bytes >= len(("€" * 10_000).encode())


def test_many_small_values_count_together(connection: KeptStatements) -> None:
    places = ", ".join("?" * 200)
    for number in range(20):
        connection.execute(f"SELECT {number}, {places}", ["y" * 1000] * 200).fetchone()
        assert min(number + 1, 15) * 200_000 <= connection.held_bytes <= KEPT_BYTES


def test_what_many_rows_are_given_counts_as_the_last_of_them(connection: KeptStatements) -> None:
    connection.execute("CREATE TABLE things (thing)")
    rows = ((text,) for text in ("x", "x" * 10_000))
    assert connection.executemany("INSERT INTO things VALUES (?)", rows).rowcount == 2
    assert connection.held_bytes == 10_000
    connection.executemany("INSERT INTO things VALUES (?)", [("x" * 10_000,), ("x",)])
    assert connection.held_bytes == 0


def test_a_statement_holds_what_it_was_given_last(connection: KeptStatements) -> None:
    for size in (10_000, 20_000, 30_000):
        connection.execute("SELECT :value", {"value": "x" * size}).fetchone()
        assert connection.held_bytes == size
    connection.execute("SELECT :value", {"value": "x"}).fetchone()
    assert connection.held_bytes == 0


def test_a_statement_that_is_being_read_goes_on_when_all_are_let_go(connection: KeptStatements) -> None:
    reading = connection.execute("SELECT value FROM json_each(?)", ("[1, 2, 3" + ", 4" * statements.LARGE_BYTES + "]",))
    assert reading.fetchone() == (1,)
    for number in range(10):
        connection.execute(f"SELECT {number}, length(?)", ("x" * (KEPT_BYTES // 2),)).fetchone()
    assert reading.fetchone() == (2,)


def test_whoever_is_told_to_stop_while_it_lets_go_does_so_the_next_time(connection: KeptStatements) -> None:
    connection.execute("SELECT 1, ?", ("x" * KEPT_BYTES,)).fetchone()
    connection.set_progress_handler(lambda: True, 1)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        connection.execute("SELECT 2, length(?) FROM json_each('[1, 2]')", ("x" * KEPT_BYTES,)).fetchall()
    assert connection.held_bytes == 2 * KEPT_BYTES
    connection.set_progress_handler(None, 1)
    connection.execute("SELECT 3, ?", ("x" * KEPT_BYTES,)).fetchone()
    assert connection.held_bytes == KEPT_BYTES


def test_sqlite_gives_back_what_is_let_go(connection: KeptStatements) -> None:
    """By its own count, where it is a library that can be asked."""
    library = next(
        (line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "sqlite3.so" in line), None
    )
    if library is None or not hasattr(loaded := ctypes.CDLL(library), "sqlite3_memory_used"):
        pytest.skip("this Python has SQLite built in")
    loaded.sqlite3_memory_used.restype = ctypes.c_int64
    before = loaded.sqlite3_memory_used()
    for number in range(100):
        connection.execute(f"SELECT {number}, length(?)", ("x" * (KEPT_BYTES // 4),)).fetchone()
        assert loaded.sqlite3_memory_used() - before <= 2 * KEPT_BYTES
