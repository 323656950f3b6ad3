"""Migrations: order, ledger, checksums, and what a database refuses."""

from __future__ import annotations

import sqlite3
from importlib import resources
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.errors import ErrorCode, ManagedError
from managedd.store import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    yield connection
    connection.close()


def put(folder: Path, **files: str) -> list[migrate.Migration]:
    for name, sql in files.items():
        (folder / f"{name.lstrip('_')}.sql").write_text(sql)
    return migrate.load(folder)


def tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def refusal(connection: sqlite3.Connection, migrations: list[migrate.Migration]) -> str:
    with pytest.raises(ManagedError) as caught:
        migrate.apply(connection, migrations, 0)
    assert caught.value.code is ErrorCode.CONFIG
    assert not connection.in_transaction
    assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    return caught.value.message


def test_files_are_applied_in_order_once_and_written_down(folder: Path, connection: sqlite3.Connection) -> None:
    known = put(
        folder, _0002_more="INSERT INTO a VALUES (2);", _0001_init="CREATE TABLE a (x); INSERT INTO a VALUES (1);"
    )
    assert [str(one) for one in migrate.apply(connection, known, 77)] == ["0001_init", "0002_more"]
    assert migrate.apply(connection, known, 78) == []
    known = put(folder, _0003_last="INSERT INTO a VALUES (3)")
    assert [one.version for one in migrate.apply(connection, known, 79)] == [3]
    assert [row[0] for row in connection.execute("SELECT x FROM a ORDER BY rowid")] == [1, 2, 3]
    ledger = connection.execute(
        "SELECT version, name, checksum, applied_at FROM schema_migrations ORDER BY version"
    ).fetchall()
    assert ledger == [(one.version, one.name, one.checksum, at) for one, at in zip(known, [77, 77, 79], strict=True)]


def test_a_changed_file_is_refused(folder: Path, connection: sqlite3.Connection) -> None:
    migrate.apply(connection, put(folder, _0001_init="CREATE TABLE a (x);"), 0)
    message = refusal(connection, put(folder, _0001_init="CREATE TABLE a (y);"))
    assert "0001_init was changed" in message


def test_line_ends_are_no_change(folder: Path, connection: sqlite3.Connection) -> None:
    migrate.apply(connection, put(folder, _0001_init="CREATE TABLE a (\nx);\n"), 0)
    (folder / "0001_init.sql").write_bytes(b"CREATE TABLE a (\r\nx);\r\n")
    assert migrate.apply(connection, migrate.load(folder), 0) == []


def test_a_newer_database_is_refused(folder: Path, connection: sqlite3.Connection) -> None:
    known = put(folder, _0001_init="CREATE TABLE a (x);", _0002_more="CREATE TABLE b (x);")
    migrate.apply(connection, known, 0)
    message = refusal(connection, known[:1])
    assert "newer than this program" in message
    assert "0002_more" in message


def test_a_hole_in_the_ledger_is_refused(folder: Path, connection: sqlite3.Connection) -> None:
    known = put(folder, _0001_init="CREATE TABLE a (x);", _0002_more="CREATE TABLE b (x);")
    migrate.apply(connection, known, 0)
    connection.execute("DELETE FROM schema_migrations WHERE version = 1")
    assert "lacks migration 0001_init" in refusal(connection, known)


def test_a_failing_file_leaves_nothing_of_itself(folder: Path, connection: sqlite3.Connection) -> None:
    known = put(
        folder, _0001_init="CREATE TABLE a (x);", _0002_bad="CREATE TABLE b (x); INSERT INTO nowhere VALUES (1);"
    )
    assert "0002_bad failed: no such table: nowhere" in refusal(connection, known)
    assert tables(connection) == {"a", "schema_migrations"}
    known = put(folder, _0002_bad="CREATE TABLE b (x);")
    assert [one.version for one in migrate.apply(connection, known, 0)] == [2]


def test_a_table_can_be_rebuilt_under_foreign_keys(folder: Path, connection: sqlite3.Connection) -> None:
    migrate.apply(
        connection,
        put(
            folder,
            _0001_init="CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p); INSERT INTO p VALUES (1); INSERT INTO c VALUES (1);",
        ),
        0,
    )
    rebuild = "CREATE TABLE q (id INTEGER PRIMARY KEY, x); INSERT INTO q SELECT id, 0 FROM p; DROP TABLE p; ALTER TABLE q RENAME TO p;"
    migrate.apply(connection, put(folder, _0002_rebuild=rebuild), 0)
    assert connection.execute("SELECT id, x FROM p").fetchall() == [(1, 0)]
    assert connection.execute("SELECT p FROM c").fetchall() == [(1,)]
    assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_dangling_references_are_refused(folder: Path, connection: sqlite3.Connection) -> None:
    known = put(
        folder,
        _0001_init="CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p); INSERT INTO c VALUES (9);",
    )
    assert "leaves rows of c that refer to missing rows of p" in refusal(connection, known)
    assert tables(connection) == set()


def test_a_file_may_not_end_its_transaction(folder: Path, connection: sqlite3.Connection) -> None:
    assert "may not end its transaction" in refusal(connection, put(folder, _0001_init="CREATE TABLE a (x); COMMIT;"))


def test_a_busy_database_is_unavailable(folder: Path, connection: sqlite3.Connection, tmp_path: Path) -> None:
    connection.execute("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ManagedError) as caught:
        migrate.apply(connection, put(folder, _0001_init="CREATE TABLE a (x);"), 0)
    other.close()
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert len(migrate.apply(connection, migrate.load(folder), 0)) == 1


def test_two_processes_apply_each_file_once(folder: Path, connection: sqlite3.Connection, tmp_path: Path) -> None:
    known = put(folder, _0001_init="CREATE TABLE a (x);")
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    raced = False

    def race(statement: str) -> None:
        nonlocal raced
        if statement.startswith("BEGIN") and not raced:
            raced = True
            assert len(migrate.apply(other, known, 0)) == 1

    connection.set_trace_callback(race)
    assert migrate.apply(connection, known, 0) == []
    other.close()
    assert raced


@pytest.mark.parametrize("name", ["0001-init.sql", "1_init.sql", "0001_Init.sql"])
def test_misnamed_files_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("")
    with pytest.raises(ManagedError, match="0001_name"):
        migrate.load(folder)


@pytest.mark.parametrize("names", [["0001_a", "0003_b"], ["0001_a", "0001_b"], ["0002_a"]])
def test_gaps_and_repetitions_are_refused(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / f"{name}.sql").write_text("")
    with pytest.raises(ManagedError, match="without a gap"):
        migrate.load(folder)


def test_other_files_are_ignored(folder: Path) -> None:
    (folder / "__init__.py").write_text("")
    assert [str(one) for one in put(folder, _0001_init="")] == ["0001_init"]


@pytest.mark.parametrize("package", ["managedd.store.migrations.state", "managedd.store.migrations.logs"])
def test_the_programs_own_migrations_load_from_their_package(package: str) -> None:
    files = sum(entry.name.endswith(".sql") for entry in resources.files(package).iterdir())
    assert len(migrate.load(package)) == files


def test_statements_keep_triggers_strings_and_comments_whole() -> None:
    script = """
    -- a comment; with a semicolon
    CREATE TABLE a (x TEXT DEFAULT 'a;b'); /* another; one */
    CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET x = ';'; DELETE FROM a; END;
    ;
    INSERT INTO a VALUES ('--;')
    -- the end;
    """
    found = list(migrate.statements(script))
    assert len(found) == 3
    assert found[1].startswith("/* another; one */") and found[1].endswith("END;")
    assert "'--;'" in found[2]


def test_an_unfinished_statement_is_refused(folder: Path, connection: sqlite3.Connection) -> None:
    known = put(folder, _0001_init="CREATE TABLE a (x); CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM a;")
    assert "a statement has no end" in refusal(connection, known)
    assert tables(connection) == set()


@given(
    st.lists(
        st.sampled_from(
            ["SELECT 1", "SELECT ';'", 'SELECT "a;b"', "SELECT 1 -- x;\n", "SELECT /* ; */ 2", "SELECT '--'"]
        )
    ),
    st.booleans(),
)
def test_any_script_splits_into_its_statements(parts: list[str], last_has_end: bool) -> None:
    script = "; ".join(parts) + (";" if last_has_end and parts else "")
    assert [one.removesuffix(";").strip() for one in migrate.statements(script)] == [part.strip() for part in parts]
