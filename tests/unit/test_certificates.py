"""The server's certificate: what can't be used is said before anybody is shown it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError

from managedd.config import ServerSection
from managedd.config.certificates import read_certificate
from managedd.errors import ErrorCode, ManagedError
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.certificates import Certificate

ADDRESS = "192.0.2.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def refused(chain: Path, key: Path) -> str:
    with pytest.raises(ManagedError) as caught:
        read_certificate(ServerSection(tls_certificate=chain, tls_key=key))
    assert caught.value.code is ErrorCode.CONFIG
    return caught.value.message


def read(made: Certificate) -> ssl.SSLContext:
    found = read_certificate(ServerSection(tls_certificate=made.chain, tls_key=made.key))
    assert found is not None
    return found.context


def test_a_good_certificate_tells_its_end_and_its_names(authority: Authority) -> None:
    made = authority.certificate(ADDRESS, days=(-1, 30))
    found = read_certificate(ServerSection(tls_certificate=made.chain, tls_key=made.key))
    assert found is not None
    assert abs(found.ends_at - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=5)
    assert found.names == (ADDRESS,)


def test_without_files_there_is_none() -> None:
    assert read_certificate(ServerSection()) is None


@pytest.mark.parametrize("given", ["tls_certificate", "tls_key"])
def test_one_file_without_the_other_is_refused(given: str, tmp_path: Path) -> None:
    missing = ({"tls_certificate", "tls_key"} - {given}).pop()
    with pytest.raises(ValidationError, match=f"{missing} is missing"):
        ServerSection.model_validate({given: tmp_path / "file"})


def test_a_missing_file_is_named(authority: Authority, tmp_path: Path) -> None:
    made = authority.certificate(ADDRESS)
    nothing = tmp_path / "nothing"
    assert refused(nothing, made.key) == f"server.tls_certificate: {nothing} can't be read: No such file or directory"
    assert refused(made.chain, nothing) == f"server.tls_key: {nothing} can't be read: No such file or directory"


def test_a_directory_is_no_file(authority: Authority, tmp_path: Path) -> None:
    assert "can't be read: Is a directory" in refused(tmp_path, authority.certificate(ADDRESS).key)


def test_a_file_without_a_certificate_is_told_from_one_without_a_key(authority: Authority, tmp_path: Path) -> None:
    made = authority.certificate(ADDRESS)
    text = tmp_path / "text"
    text.write_text("no PEM at all\n")
    assert refused(text, made.key).startswith(f"server.tls_certificate: {text} holds no certificate")
    assert refused(made.chain, text).startswith(f"server.tls_key: {text} holds no private key")
    assert refused(made.key, made.chain).startswith(f"server.tls_certificate: {made.key} holds no certificate")


def test_another_certificates_key_is_refused(authority: Authority, tmp_path: Path) -> None:
    made, other = authority.certificate(ADDRESS), authority.certificate(ADDRESS, name="other")
    assert f"{other.key} is not the key of the first certificate in {made.chain}" in refused(made.chain, other.key)


def test_a_key_of_another_kind_is_refused(authority: Authority, tmp_path: Path) -> None:
    made, key = authority.certificate(ADDRESS), tmp_path / "rsa.key"
    made_key = rsa.generate_private_key(65537, 2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key.write_bytes(made_key.private_bytes(*form))
    assert "is not the key" in refused(made.chain, key)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(authority: Authority) -> None:
    made = authority.certificate(ADDRESS, password=b"secret")
    assert f"{made.key} is encrypted" in refused(made.chain, made.key)


@pytest.mark.parametrize(
    ("days", "words"), [((-10.0, -1.0), "has expired"), ((1.0, 10.0), "is not valid yet")], ids=["expired", "future"]
)
def test_a_certificate_that_clients_would_refuse_is_refused(
    authority: Authority, days: tuple[float, float], words: str
) -> None:
    made = authority.certificate(ADDRESS, days=days)
    assert f"server.tls_certificate: {made.chain} {words}" in refused(made.chain, made.key)


def test_old_versions_of_tls_are_not_spoken(authority: Authority) -> None:
    context = read(authority.certificate(ADDRESS))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_ciphers_of_every_version_are_authenticated_and_forward_secret(authority: Authority) -> None:
    for cipher in read(authority.certificate(ADDRESS)).get_ciphers():
        assert cipher["aead"], cipher["name"]
        assert cipher["kea"] in {"kx-ecdhe", "kx-any"}, cipher["name"]
