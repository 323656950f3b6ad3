"""The key of a store: found in its order, refused when it is another's, followed by a new one without a row that can't be read."""

from __future__ import annotations

import base64
import os
import stat
import threading
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import pytest

from managedd import ids
from managedd.bus import Bus
from managedd.errors import ErrorCode, ManagedError
from managedd.store import key_files, sealed, secret_keys, unlocking, workspaces
from managedd.store.cipher import CannotOpen, Key
from managedd.store.database import Database
from managedd.store.key_files import NEXT_NAME, OWN, OWN_NAME, Found

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ROWS = 2 * sealed.STEP_ROWS + 3


class OpenStore(Protocol):
    """The store of this test, opened once more with the key that the operator gives."""

    async def __call__(self, found: Found | None = None, **options: Any) -> Database: ...


@pytest.fixture
async def store(anyio_backend: str, tmp_path: Path) -> AsyncIterator[OpenStore]:
    opened: list[Database] = []

    async def opener(found: Found | None = None, **options: Any) -> Database:
        for before in opened:
            await before.close()
        db = await Database.open(tmp_path / "state.db", bus=Bus(), migrations="managedd.store.migrations.state")
        opened[:] = [db]
        await db.write(lambda tx: workspaces.ensure_default(tx, plan="pro"))
        await unlocking.unlock(db, tmp_path, found, **options)
        return db

    yield opener
    for db in opened:
        await db.close()


def given(source: str = "/etc/key") -> Found:
    return Found(key=Key.new(), source=source)


async def fill(db: Database, rows: int = ROWS) -> None:
    def body(tx: Any) -> None:
        for number in range(rows):
            sealed.put(tx, "t", str(number), {"text": number})

    await db.write(body, workspace=ids.DEFAULT_WORKSPACE_ID)


async def read(db: Database, rows: int = ROWS) -> list[Any]:
    return await db.read(
        lambda tx: [sealed.get(tx, "t", str(number)) for number in range(rows)], workspace=ids.DEFAULT_WORKSPACE_ID
    )


WHOLE = [{"text": number} for number in range(ROWS)]

pytestmark = pytest.mark.anyio


async def test_without_any_key_one_is_made_for_its_owner_alone(store: OpenStore, tmp_path: Path) -> None:
    db = await store()
    await fill(db)
    assert stat.S_IMODE((tmp_path / OWN_NAME).stat().st_mode) == 0o600
    assert len(base64.b64decode((tmp_path / OWN_NAME).read_bytes())) == 32
    again = await store()
    assert await read(again) == WHOLE
    assert again.vault.ring.current.id == db.vault.ring.current.id


async def test_a_missing_key_is_never_made_anew_while_something_needs_it(store: OpenStore, tmp_path: Path) -> None:
    db = await store()
    await fill(db, 2)
    wanted = db.vault.ring.current.id
    (tmp_path / OWN_NAME).rename(tmp_path / "away")
    with pytest.raises(
        ManagedError, match=f"2 secrets of the store .* key {wanted}, and there is none: .*{OWN_NAME} is missing"
    ) as caught:
        await store()
    assert caught.value.code is ErrorCode.CONFIG
    assert not (tmp_path / OWN_NAME).exists()
    (tmp_path / "away").rename(tmp_path / OWN_NAME)
    assert await read(await store(), 2) == WHOLE[:2]


async def test_another_key_is_refused_and_says_what_to_do(store: OpenStore) -> None:
    right, wrong = given(), given("/etc/other")
    db = await store(right)
    await fill(db, 1)
    with pytest.raises(ManagedError) as caught:
        await store(wrong)
    message = caught.value.message
    assert f"encrypted with key {right.key.id}, and /etc/other holds key {wrong.key.id}" in message
    assert "it was last in /etc/key" in message and "managedd secrets rotate" in message
    assert await read(await store(right), 1) == WHOLE[:1]


async def test_a_key_of_the_same_name_that_is_another_is_refused(store: OpenStore) -> None:
    right = given()
    db = await store(right)
    await fill(db, 1)
    await db.write(lambda tx: tx.execute("UPDATE secret_keys SET check_value = 'x'"))
    with pytest.raises(ManagedError, match="Give the daemon that key"):
        await store(right)


async def test_while_nothing_is_sealed_any_key_is_good(store: OpenStore, tmp_path: Path) -> None:
    await store()
    (tmp_path / OWN_NAME).unlink()
    first = await store()
    assert (tmp_path / OWN_NAME).exists()
    second = await store(given())
    assert first.vault.ring.current.id != second.vault.ring.current.id
    assert len(await second.read(secret_keys.every)) == 1


@pytest.mark.parametrize(
    "spell", [bytes, lambda key: base64.b64encode(key) + b"\n", lambda key: base64.urlsafe_b64encode(key).rstrip(b"="), lambda key: key.hex().encode()]
)  # fmt: skip
def test_a_key_is_read_however_it_is_spelled(tmp_path: Path, spell: Any) -> None:
    material = b"\xfb\xff" * 16
    (tmp_path / "key").write_bytes(spell(material))
    assert key_files.read(tmp_path / "key").id == Key(material).id


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33, b"short", b"\xff" * 40, b"A" * 10_000])
def test_what_is_no_key_is_refused_without_repeating_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ManagedError, match="holds no key; allowed: 32 random bytes") as caught:
        key_files.read(tmp_path / "key")
    assert caught.value.code is ErrorCode.CONFIG and (
        not content or content.decode("latin-1") not in caught.value.message
    )


def test_a_credential_goes_before_a_file_and_a_file_before_the_environment(tmp_path: Path) -> None:
    keys = {name: Key.new() for name in ("credential", "file", "text")}
    (tmp_path / key_files.CREDENTIAL).write_bytes(keys["credential"].material)
    (tmp_path / "file").write_bytes(keys["file"].material)
    text = base64.b64encode(keys["text"].material).decode()
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path)}

    def first(*arguments: Any) -> tuple[str, str]:
        found = key_files.configured(*arguments)
        assert found is not None
        return next(name for name, key in keys.items() if key.id == found.key.id), found.source

    assert first(tmp_path / "file", text, credentials) == ("credential", str(tmp_path / key_files.CREDENTIAL))
    assert first(tmp_path / "file", text, {}) == ("file", str(tmp_path / "file"))
    assert first(None, text, {"CREDENTIALS_DIRECTORY": str(tmp_path / "none")}) == ("text", key_files.ENVIRONMENT)
    assert key_files.configured(None, None, {}) is None
    with pytest.raises(ManagedError, match="missing can't be read: No such file"):
        key_files.configured(tmp_path / "missing", text, {})


async def test_a_new_key_takes_the_place_of_the_old(store: OpenStore, tmp_path: Path) -> None:
    db = await store()
    await fill(db)
    old = key_files.read(tmp_path / OWN_NAME)
    await unlocking.begin_rotation(db, tmp_path, None)
    assert await read(db) == WHOLE
    assert await unlocking.rotate(db, tmp_path) == ROWS
    new = key_files.read(tmp_path / OWN_NAME)
    assert new.id != old.id and not (tmp_path / NEXT_NAME).exists()
    assert await db.read(sealed.counts) == {new.id: ROWS}
    assert [stored.id for stored in await db.read(secret_keys.every)] == [new.id]
    assert await read(db) == await read(await store()) == WHOLE


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
async def test_cut_short_anywhere_every_row_is_read_and_the_next_start_goes_on(store: OpenStore, tmp_path: Path, steps: int) -> None:  # fmt: skip
    db = await store()
    await fill(db)
    await unlocking.begin_rotation(db, tmp_path, None)
    for _ in range(steps):
        await db.write(sealed.renew)
    db = await store()
    assert await read(db) == WHOLE
    await fill(db, 1)
    await unlocking.rotate(db, tmp_path)
    assert await read(await store()) == WHOLE
    assert len(await (await store()).read(sealed.counts)) == 1


async def test_who_began_to_read_before_the_key_changed_reads_to_the_end(store: OpenStore, tmp_path: Path) -> None:
    db = await store()
    await fill(db, 2)
    began, changed = threading.Event(), threading.Event()

    def slowly(tx: Any) -> list[Any]:
        first = sealed.get(tx, "t", "0")
        began.set()
        assert changed.wait(30)
        return [first, sealed.get(tx, "t", "1")]

    found: list[Any] = []

    async def reader() -> None:
        found.extend(await db.read(slowly, workspace=ids.DEFAULT_WORKSPACE_ID))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader)
        await anyio.to_thread.run_sync(began.wait)
        try:
            await unlocking.begin_rotation(db, tmp_path, None)
            assert await unlocking.rotate(db, tmp_path) == 2
        finally:
            changed.set()
    assert found == [{"text": 0}, {"text": 1}]
    assert await read(db, 2) == found


async def test_the_operators_new_key_opens_what_the_old_one_sealed(store: OpenStore, tmp_path: Path) -> None:
    old, new = given("/etc/old"), given("/etc/new")
    db = await store(old)
    await fill(db)
    await unlocking.begin_rotation(db, tmp_path, new)
    await db.write(sealed.renew)
    with pytest.raises(ManagedError, match=f"key {new.key.id} to which it was being changed, and /etc/old holds"):
        await store(old)
    db = await store(new)
    assert await read(db) == WHOLE
    await unlocking.rotate(db, tmp_path)
    with pytest.raises(ManagedError, match="last in /etc/new"):
        await store(old)
    assert await read(await store(new)) == WHOLE


async def test_the_old_key_is_good_while_the_file_of_the_new_one_can_be_read(store: OpenStore, tmp_path: Path) -> None:
    path = tmp_path / "new.key"
    path.write_bytes(os.urandom(32))
    old = given("/etc/old")
    db = await store(old)
    await fill(db)
    await unlocking.begin_rotation(db, tmp_path, Found(key=key_files.read(path), source=str(path)))
    db = await store(old)
    assert await unlocking.rotate(db, tmp_path) == ROWS


async def test_a_key_of_the_operators_removes_the_one_beside_the_store(store: OpenStore, tmp_path: Path) -> None:
    db = await store()
    await fill(db, 1)
    new = given()
    await unlocking.begin_rotation(db, tmp_path, new)
    assert (tmp_path / OWN_NAME).exists()
    await unlocking.rotate(db, tmp_path)
    assert not (tmp_path / OWN_NAME).exists()
    assert await read(await store(new), 1) == WHOLE[:1]


async def test_what_makes_no_sense_is_refused(store: OpenStore, tmp_path: Path) -> None:
    old, new = given(), given()
    db = await store(old)
    await fill(db, 1)
    with pytest.raises(ManagedError, match="name the file that holds the new one with --to"):
        await unlocking.begin_rotation(db, tmp_path, None)
    with pytest.raises(ManagedError, match=f"encrypted with key {old.key.id} already"):
        await unlocking.begin_rotation(db, tmp_path, old)
    await unlocking.begin_rotation(db, tmp_path, new)
    with pytest.raises(ManagedError, match=f"a rotation to key {new.key.id} is under way"):
        await unlocking.begin_rotation(db, tmp_path, given())
    await unlocking.begin_rotation(db, tmp_path, new)


async def test_an_envelope_that_does_not_open_stops_the_rotation_and_keeps_the_old_key(store: OpenStore, tmp_path: Path) -> None:  # fmt: skip
    db = await store()
    await fill(db, 3)
    await db.write(lambda tx: tx.execute("UPDATE sealed SET row_id = 'moved' WHERE row_id = '1'"))
    await unlocking.begin_rotation(db, tmp_path, None)
    with pytest.raises(CannotOpen, match="row moved of t"):
        await unlocking.rotate(db, tmp_path)
    assert len(await db.read(secret_keys.every)) == 2
    await db.write(lambda tx: sealed.drop(tx, "t", "moved"), workspace=ids.DEFAULT_WORKSPACE_ID)
    await unlocking.rotate(db, tmp_path)
    assert await read(db, 3) == [WHOLE[0], None, WHOLE[2]]


async def test_swapped_rows_do_not_open(store: OpenStore) -> None:
    db = await store()
    await fill(db, 2)

    def swap(tx: Any) -> None:
        one, other = (tx.scalar("SELECT envelope FROM sealed WHERE row_id = ?", (row,)) for row in "01")
        tx.executemany("UPDATE sealed SET envelope = ? WHERE row_id = ?", [(other, "0"), (one, "1")])

    await db.write(swap)
    for row in "01":
        with pytest.raises(CannotOpen, match="moved there from another row"):
            await db.read(lambda tx, row=row: sealed.get(tx, "t", row), workspace=ids.DEFAULT_WORKSPACE_ID)


async def test_an_envelope_does_not_open_in_another_workspace(store: OpenStore) -> None:
    db, other = await store(), ids.new_id()
    await fill(db, 1)
    assert await db.read(lambda tx: sealed.get(tx, "t", "0"), workspace=other) is None

    def move(tx: Any) -> None:
        workspaces.create(tx, account_id=ids.new_id(), account="o", workspace_id=other, handle="w", plan="pro")
        tx.execute("UPDATE sealed SET workspace_id = ?", (other,))

    await db.write(move)
    with pytest.raises(CannotOpen, match="changed, or moved there"):
        await db.read(lambda tx: sealed.get(tx, "t", "0"), workspace=other)


def test_the_sources_word_is_not_a_path() -> None:
    assert not os.path.isabs(OWN) and not os.path.isabs(key_files.ENVIRONMENT)
