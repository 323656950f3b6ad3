"""The clients' listener's certificate: read, and tried, before anybody is shown it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from managedd.config.values import wrong

if TYPE_CHECKING:
    from managedd.config.sections import ServerSection
    from managedd.errors import ManagedError

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption only, as in TLS 1.3."""
_MISMATCHES: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
_EXPIRED: Final = 10
_NOT_YET: Final = 9
"""OpenSSL's verify codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate that works with its key, at the moment when it was read."""

    context: ssl.SSLContext
    ends_at: datetime
    names: tuple[str, ...]
    """The host names and addresses that clients may use."""


class _Encrypted(Exception):
    """The key asks for a password."""


def read_certificate(server: ServerSection) -> Certificate | None:
    """The certificate of `server.tls_certificate`; None: plain HTTP. Raises ManagedError(CONFIG) when clients could not use it.

    Not a part of loading: commands that only ask the daemon may run as users who can't read the files.
    """
    chain, key = server.tls_certificate, server.tls_key
    if chain is None or key is None:
        return None
    for name, path in (("tls_certificate", chain), ("tls_key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise wrong(f"server.{name}: {path} can't be read: {error.strerror or error}") from None
    context = _context(chain, key)
    shown = _shown(context, chain)
    ends_at = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
    names = tuple(str(name) for _kind, name in shown.get("subjectAltName", ()))
    return Certificate(context=context, ends_at=ends_at, names=names)


def _context(chain: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Told apart from a key that is none: both errors read the same.
        _watcher(chain)
    except ssl.SSLError:
        raise wrong(
            f"server.tls_certificate: {chain} holds no certificate, or a damaged one; allowed: a PEM file with the server's "
            "-----BEGIN CERTIFICATE----- block first and those of its issuers after it"
        ) from None
    try:
        context.load_cert_chain(chain, key, password=_refuse)
    except _Encrypted:
        raise wrong(
            f"server.tls_key: {key} is encrypted, and nobody is there to type its password when the daemon starts: write it decrypted into a "
            "file that only the daemon's user may read (openssl pkey -in KEY -out NEW)"
        ) from None
    except ssl.SSLError as error:
        raise _refusal(error, chain, key) from None
    return context


def _refuse() -> str:
    raise _Encrypted


def _refusal(error: ssl.SSLError, chain: Path, key: Path) -> ManagedError:
    if error.reason in _MISMATCHES:
        return wrong(
            f"server.tls_key: {key} is not the key of the first certificate in {chain}; allowed: the key that the certificate was made for"
        )
    if error.reason:
        # Too small a key, too weak a signature, a chain that can't be loaded: OpenSSL's words say which.
        return wrong(f"server.tls_certificate: {chain} can't be used: {error.reason.replace('_', ' ').lower()}")
    return wrong(
        f"server.tls_key: {key} holds no private key, or a damaged one; allowed: a PEM file with one -----BEGIN … PRIVATE KEY----- block"
    )


def _watcher(chain: Path) -> ssl.SSLContext:
    """A client's side that trusts this very certificate."""
    watcher = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    watcher.check_hostname = False
    watcher.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    watcher.load_verify_locations(chain)
    return watcher


def _shown(context: ssl.SSLContext, chain: Path) -> dict[str, tuple[tuple[str, str], ...]]:
    """What a client is shown of the certificate in a handshake: the standard library tells its dates nowhere else."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = _watcher(chain).wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(4):
            for side in (client, server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        shown = client.getpeercert()
    except ssl.SSLCertVerificationError as error:
        raise wrong(f"server.tls_certificate: {chain} {_unusable(error)}") from None
    except (ssl.SSLError, ValueError) as error:
        raise wrong(f"server.tls_certificate: no client can use {chain}: {error}") from None
    assert shown is not None
    return shown  # type: ignore[return-value]  # its values differ by key; only two are read


def _unusable(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return "has expired, and clients refuse it: put a new one in its place"
    if error.verify_code == _NOT_YET:
        return "is not valid yet: look at this host's clock, or wait"
    return f"would be refused by clients: {error.verify_message}"
