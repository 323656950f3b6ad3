"""What a store that no daemon has open says, read without leaving a trace: no lock, no migration, no file beside it."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def facts(data_dir: Path) -> Mapping[str, str]:
    """The small facts of the installation (`meta`), as of the last checkpoint; none when there is no store or it can't be read.

    Only while no daemon holds the directory's lock: the file is taken for one that nobody writes. Opened otherwise, by root, it would get a
    write-ahead log of root's, and the daemon's own user could not open the store any more.
    """
    return {str(key): str(value) for key, value in _rows(data_dir, "SELECT key, value FROM meta")}


def workspaces(data_dir: Path) -> int | None:
    """How many workspaces there are, in the same way; None when that can't be told."""
    return next((int(count) for (count,) in _rows(data_dir, "SELECT count(*) FROM workspaces")), None)


def plans(data_dir: Path) -> Mapping[str, str]:
    """Which plan each workspace, `account/handle`, is on, in the same way; none when that can't be told."""
    sql = "SELECT a.handle || '/' || w.handle, w.plan FROM workspaces AS w JOIN accounts AS a ON a.id = w.account_id"
    return {str(workspace): str(plan) for workspace, plan in _rows(data_dir, sql)}


def _rows(data_dir: Path, sql: str) -> list[tuple[Any, ...]]:
    path = data_dir / "state.db"
    with contextlib.suppress(sqlite3.Error):
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)) as store:
            return store.execute(sql).fetchall()
    return []


def sqlite_version() -> tuple[int, ...]:
    """The version of SQLite that this Python has."""
    return sqlite3.sqlite_version_info
