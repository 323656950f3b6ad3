"""The store is opened with the key that fits, gets another one, or is refused.

While keys change, the store holds the old one in an envelope of the new: whoever has the new one can read every row, and goes on where a crash
came in between.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from managedd import failpoints
from managedd.errors import ErrorCode, ManagedError, conflict
from managedd.store import key_files, sealed, secret_keys
from managedd.store.cipher import KeyRing

if TYPE_CHECKING:
    from collections.abc import Callable

    from managedd.config import SecretsSection
    from managedd.store.cipher import Key
    from managedd.store.database import Database, Tx
    from managedd.store.key_files import Found
    from managedd.store.secret_keys import StoredKey

    Body = Callable[[Tx], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What is known of the keys of a store."""

    current: StoredKey
    followed: tuple[StoredKey, ...]
    """Not empty: a rotation is under way."""
    envelopes: dict[str, int]
    """How many each key has made."""


def given(section: SecretsSection) -> Found | None:
    """The key that the operator gives, if any. Raises ManagedError(CONFIG)."""
    text = None if section.key is None else section.key.get_secret_value()
    return key_files.configured(section.key_file, text, os.environ)


async def unlock(db: Database, data_dir: Path, found: Found | None, *, also_own: bool = False) -> None:
    """The store's vault has the keys. Raises ManagedError(CONFIG) when the key is missing, or is not that of the store.

    The caller holds the directory's lock. `found` is the key that the operator gives; `also_own`: one beside the store is good as well.
    """
    known = await keys(db)
    if known is None or not (known.envelopes or known.followed):
        # Nothing needs an earlier key.
        await _adopt(db, data_dir, known, found)
        return
    usable = [] if found is None else [found]
    if found is None or also_own:
        usable += key_files.own(data_dir)
    if known.followed:
        usable += _came_in(known.current.source)
    fitting = next((each for each in usable if known.current.is_(each.key)), None)
    if fitting is None:
        raise ManagedError(ErrorCode.CONFIG, _refusal(data_dir, known, found))
    db.vault.take(secret_keys.ring(fitting.key, [known.current, *known.followed]))


async def unlock_closed(db: Database, data_dir: Path, section: SecretsSection) -> Found | None:
    """A store that no daemon serves has its keys, if it had not; returns the key that the operator gives when it is another than the store's.

    Raises ManagedError(CONFLICT) when none fits.
    """
    if not db.vault.is_empty:
        return None
    try:
        found = given(section)
        await unlock(db, data_dir, found, also_own=True)
    except ManagedError as error:
        raise conflict(error.message) from error
    return None if found is None or found.key.id == db.vault.ring.current.id else found


async def keys(db: Database) -> Keys | None:
    """What is known of the store's keys, None before it had any."""
    stored, counts = await db.read(lambda tx: (secret_keys.every(tx), sealed.counts(tx)))
    return Keys(current=stored[0], followed=tuple(stored[1:]), envelopes=counts) if stored else None


async def _adopt(db: Database, data_dir: Path, known: Keys | None, found: Found | None) -> None:
    if found is None:
        here = key_files.own(data_dir)
        found = here[0] if here else key_files.make(data_dir)
    key, source = found.key, found.source
    if known is None or not known.current.is_(key):
        await db.write(lambda tx: secret_keys.adopt(tx, key, source), durable=True)
    db.vault.take(KeyRing(key))


def _came_in(source: str) -> list[Found]:
    """The key that a rotation was begun with, where its file still stands."""
    path = Path(source)
    try:
        return [key_files.Found(key=key_files.read(path), source=source)] if path.is_absolute() else []
    except ManagedError:
        return []


def _refusal(data_dir: Path, known: Keys, found: Found | None) -> str:
    total = sum(known.envelopes.values())
    wanted = known.current
    own_path = data_dir / key_files.OWN_NAME
    came = str(own_path) if wanted.source == key_files.OWN else wanted.source
    if found is None and not own_path.exists():
        has = f"there is none: {own_path} is missing and none is configured"
    else:
        there = str(own_path) if found is None else found.source
        shown = key_files.own(data_dir)[0].key.id if found is None else found.key.id
        has = f"{there} holds key {shown}"
    change = " to which it was being changed" if known.followed else ""
    return (
        f"the {total} secrets of the store in {data_dir} are encrypted with key {wanted.id}{change}, and {has}. Give the daemon that key: it "
        f"was last in {came}; put it there again, or name the file that has it as secrets.key_file (or the credential {key_files.CREDENTIAL}, "
        f"or {key_files.ENVIRONMENT}). To change to another key, start with the old one and run `managedd secrets rotate`"
    )


def _alone(change: Body) -> Body:
    return change


async def begin_rotation(
    db: Database, data_dir: Path, new: Found | None, *, noted: Callable[[Body], Body] = _alone
) -> None:
    """A new key seals; without `new`, one made beside the store, if the old one was. Raises ManagedError(CONFLICT).

    What the old one has sealed can be read, and waits for `rotate`. A rotation that was begun with the same key goes on. `noted` makes of
    the body that changes the store one that also notes the change down.
    """
    async with db.vault.changing:
        await _begin(db, data_dir, new, noted)


async def _begin(db: Database, data_dir: Path, new: Found | None, noted: Callable[[Body], Body]) -> None:
    known, ring = await keys(db), db.vault.ring
    old = ring.current
    if known is not None and known.followed:
        if new is not None and not known.current.is_(new.key):
            raise conflict(f"a rotation to key {known.current.id} is under way: let it end first")
        return
    if new is None:
        if known is None or known.current.source != key_files.OWN:
            raise conflict(
                "the key is not one that the daemon has made: name the file that holds the new one with --to"
            )
        new = key_files.make(data_dir, key_files.NEXT_NAME)
    if new.key.id == old.id:
        raise conflict(f"the store is encrypted with key {old.id} already")
    key, source = new.key, new.source
    # It opens before it seals: what is sealed with it is on the disk no earlier than that the store knows of it.
    db.vault.take(KeyRing(old, [key]))
    await db.write(noted(lambda tx: secret_keys.succeed(tx, key, source, old)), durable=True)
    db.vault.take(KeyRing(key, [old]))
    failpoints.reach("secrets.begun")


async def rotate(db: Database, data_dir: Path) -> int:
    """Everything is sealed by the current key, and the store knows no other; how many envelopes were made anew.

    It may be repeated. Raises CannotOpen.
    """
    total, known = 0, await keys(db)
    while known is not None and known.followed:
        while done := await db.write(sealed.renew):
            total += done
            failpoints.reach("secrets.step")
        async with db.vault.changing:
            known = await _end(db, data_dir)
    return total


async def _end(db: Database, data_dir: Path) -> Keys | None:
    """The old key is gone, if nothing needs it any more; what is known of the keys then."""
    known, current = await keys(db), db.vault.ring.current
    if known is None or not known.followed or known.envelopes.keys() - {current.id}:
        return known
    _put_away(data_dir, known, current)
    failpoints.reach("secrets.renewed")
    if await db.write(secret_keys.finish, durable=True):
        db.vault.take(KeyRing(current))
        # The log still has the old key's envelopes.
        await db.checkpoint()
    return await keys(db)


def _put_away(data_dir: Path, known: Keys, current: Key) -> None:
    """The file beside the store has the current key, or there is none because the operator has it."""
    if known.current.source == key_files.OWN:
        key_files.promote(data_dir, current)
    else:
        key_files.remove_own(data_dir, [each.id for each in known.followed])
