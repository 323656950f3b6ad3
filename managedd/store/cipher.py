"""What is secret, in envelopes: AES-256-GCM, each envelope bound to the row that it was made for.

An envelope is `version (1 byte) | key id (8) | nonce (12) | ciphertext and tag`. Version, key id, table, workspace and row are authenticated
with it: one that was copied to another row, or to another workspace, does not open.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import anyio

from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
VERSION: Final = b"\x01"
_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_NONCE_AT: Final = len(VERSION) + _ID_BYTES
_TEXT_AT: Final = _NONCE_AT + _NONCE_BYTES


class CannotOpen(ManagedError):
    """An envelope that was changed, was moved, or needs a key that is not here."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(
            ErrorCode.INTERNAL,
            f"the secret of row {place.row_id} of {place.table} can't be opened: {reason}; restore the store from a backup, or delete that row's object and make it again",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The row that an envelope belongs to."""

    table: str
    workspace_id: str
    row_id: str

    def bound(self, header: bytes) -> bytes:
        """What is authenticated beside the text; each part with its length, so that none can lend to the next."""
        parts = (part.encode() for part in (self.table, self.workspace_id, self.row_id))
        return header + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class Key:
    """256 random bits, and the names that may be known of them."""

    def __init__(self, material: bytes) -> None:
        if len(material) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(material)}")
        self._material = material
        self.id = self._derived("id")[: 2 * _ID_BYTES]
        """16 hexadecimal digits; says nothing of the key."""
        self.check_value = self._derived("check")
        """Shows whether a key is the one that the store was written with; says nothing of it."""

    @classmethod
    def new(cls) -> Key:
        """A key that nobody has had."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @property
    def material(self) -> bytes:
        """The key itself: for its file, or to stand in an envelope of the key that follows it."""
        return self._material

    def __repr__(self) -> str:
        return f"Key({self.id})"

    def _derived(self, what: str) -> str:
        return hmac.new(self._material, f"managedd {what}".encode(), hashlib.sha256).hexdigest()

    @cached_property
    def cipher(self) -> AESGCM:
        """The cipher; its library is loaded when the first secret is met."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        return AESGCM(self._material)


class KeyRing:
    """The key that seals, and those that may still be needed to open. Never changes: a new one takes its place."""

    def __init__(self, current: Key, others: Iterable[Key] = ()) -> None:
        self.current = current
        self._keys = {bytes.fromhex(key.id): key for key in (*others, current)}

    def seal(self, place: Place, text: bytes) -> bytes:
        """The envelope of `text` for that place."""
        header = VERSION + bytes.fromhex(self.current.id)
        # 96 random bits: with one key, 2**32 envelopes may be made before two nonces could be alike.
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return header + nonce + self.current.cipher.encrypt(nonce, text, place.bound(header))

    def has_key_of(self, envelope: bytes) -> bool:
        """Whether the key that has made the envelope is here."""
        return envelope[len(VERSION) : _NONCE_AT] in self._keys

    def open(self, place: Place, envelope: bytes) -> bytes:
        """The text of an envelope of that place. Raises CannotOpen."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        if len(envelope) < _TEXT_AT + _TAG_BYTES or envelope[:1] != VERSION:
            raise CannotOpen(place, "it is no envelope of this version")
        header = envelope[:_NONCE_AT]
        key = self._keys.get(header[1:])
        if key is None:
            raise CannotOpen(place, f"it was encrypted with key {header[1:].hex()}, which is not here")
        try:
            return key.cipher.decrypt(envelope[_NONCE_AT:_TEXT_AT], envelope[_TEXT_AT:], place.bound(header))
        except InvalidTag:
            raise CannotOpen(place, "it was changed, or moved there from another row") from None


class Vault:
    """Where a store's transactions find the keys. Empty until the store is known to fit them."""

    def __init__(self, ring: KeyRing | None = None) -> None:
        self._ring = ring
        self.changing = anyio.Lock()
        """Held by whoever changes the keys."""

    @property
    def is_empty(self) -> bool:
        """Whether there are no keys yet."""
        return self._ring is None

    @property
    def ring(self) -> KeyRing:
        """The keys. Raises ManagedError(INTERNAL) before there are any."""
        if self._ring is None:
            raise ManagedError(ErrorCode.INTERNAL, "this store was opened without the key of its secrets")
        return self._ring

    @property
    def ring_if_any(self) -> KeyRing | None:
        """The keys, or None before there are any."""
        return self._ring

    def open(self, place: Place, envelope: bytes, before: KeyRing | None) -> bytes:
        """The text of an envelope as a transaction sees it, for which these keys were here before it began. Raises CannotOpen.

        The keys may change while it lasts: it still sees what the one before has made, and may see what the new one has.
        """
        ring = self.ring
        if before is not None and not ring.has_key_of(envelope):
            ring = before
        return ring.open(place, envelope)

    def take(self, ring: KeyRing) -> None:
        """Whatever is sealed from now on is with `ring`, and what is seen from now on is opened with it."""
        self._ring = ring
