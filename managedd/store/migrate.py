"""Numbered SQL files, applied in order, each in a transaction of its own and written down with its checksum."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from managedd.errors import ErrorCode, ManagedError
from managedd.store.transaction import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.resources.abc import Traversable

_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """What tells whether a file was changed after it had been applied."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.version:04}_{self.name}"


def load(source: str | Traversable) -> list[Migration]:
    """The migrations of a package, or of a folder, in their order and without a gap."""
    folder = resources.files(source) if isinstance(source, str) else source
    found = []
    for entry in folder.iterdir():
        if not entry.name.endswith(".sql"):
            continue
        match = _FILE_NAME.fullmatch(entry.name)
        if match is None:
            raise _fault(f"{entry.name}: a migration is called 0001_name.sql, in lower case")
        # Line ends are no change of the schema: a checkout may differ in them.
        sql = entry.read_text(encoding="utf-8").replace("\r\n", "\n")
        found.append(Migration(version=int(match[1]), name=match[2], sql=sql))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        names = ", ".join(map(str, found))
        raise _fault(f"migrations count 0001, 0002, … without a gap or a repetition; found {names}")
    return found


def apply(connection: sqlite3.Connection, migrations: Sequence[Migration], now_us: int) -> list[Migration]:
    """The database has the schema of `migrations`; returns those that were new to it.

    Foreign keys are off meanwhile, so that a table can be rebuilt, and checked before each commit.
    """
    foreign_keys = connection.execute("PRAGMA foreign_keys").fetchone()[0]
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        applied = []
        while (migration := _next(connection, migrations)) is not None:
            if _apply_one(connection, migration, migrations, now_us):
                applied.append(migration)
        return applied
    except sqlite3.Error as error:
        raise translated(error) from error
    finally:
        connection.execute(f"PRAGMA foreign_keys = {foreign_keys}")


def statements(sql: str) -> Iterator[str]:
    """The statements of a script, one by one. Raises ValueError when the last one has no end."""
    pending = ""
    for piece in sql.split(";"):
        pending += piece + ";"
        if sqlite3.complete_statement(pending):
            if _without_comments(pending):
                yield pending.strip()
            pending = ""
    # The split added one semicolon too many; it completes nothing but a statement that lacks its own.
    if rest := _without_comments(pending):
        raise ValueError(f"a statement has no end: {rest[:80]}")


def _next(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> Migration | None:
    """The first migration that the database lacks. Raises CONFIG when the two don't belong together."""
    ledger = connection.execute(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_migrations'"
    ).fetchone()
    rows = (
        connection.execute("SELECT version, name, checksum FROM schema_migrations ORDER BY version").fetchall()
        if ledger
        else []
    )
    if len(rows) > len(migrations):
        raise _fault(
            f"the database is newer than this program: it has migration {rows[-1][0]:04}_{rows[-1][1]}, "
            f"this program knows {len(migrations)}; install the version that wrote it, or restore a backup"
        )
    for (version, name, checksum), migration in zip(rows, migrations, strict=False):
        if version != migration.version:
            raise _fault(f"the database lacks migration {migration} but has a later one: it is damaged")
        if checksum != migration.checksum:
            raise _fault(f"migration {version:04}_{name} was changed after it had been applied to this database")
    return migrations[len(rows)] if len(rows) < len(migrations) else None


def _apply_one(
    connection: sqlite3.Connection, migration: Migration, migrations: Sequence[Migration], now_us: int
) -> bool:
    """The database has `migration`; False when another process was faster."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _next(connection, migrations) is not migration:
            return False
        for statement in statements(migration.sql):
            connection.execute(statement).fetchall()
            if not connection.in_transaction:
                raise _fault(f"migration {migration}: a migration may not end its transaction")
        broken = connection.execute("PRAGMA foreign_key_check").fetchone()
        if broken is not None:
            raise _fault(f"migration {migration} leaves rows of {broken[0]} that refer to missing rows of {broken[2]}")
        connection.execute(_LEDGER)
        connection.execute(
            "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, ?)",
            (migration.version, migration.name, migration.checksum, now_us),
        )
        connection.execute("COMMIT")
    except (sqlite3.Error, ValueError) as error:
        cause = translated(error)
        raise cause if _passes(cause) else _fault(f"migration {migration} failed: {error}") from error
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return True


def _without_comments(sql: str) -> str:
    return _COMMENT.sub("", sql).strip("; \n\t")


def _passes(error: BaseException) -> bool:
    return isinstance(error, ManagedError) and error.code is ErrorCode.UNAVAILABLE


def _fault(message: str) -> ManagedError:
    return ManagedError(ErrorCode.CONFIG, message)
