"""What the store keeps of browsers' sessions: so many, and nothing from which their credential could be guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from managedd.api import sessions
from managedd.api.auth import Listener, authenticate
from managedd.model import keys
from managedd.store import web_sessions
from tests.support.api_keys import make_key

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio
AUTH = "admin:secret"
"""The auth string of the fixture `closed`."""


async def begun(api: ApiClient, credential: str) -> str:
    """The token of a new session."""
    actor = await authenticate(api.services, Listener.CLIENTS, credential, None)
    assert actor is not None
    return await sessions.begin(api.services, actor, credential)


async def status(api: ApiClient, token: str) -> int:
    return (await api.get("/me/", headers={"Cookie": f"{sessions.COOKIE}={token}"}))[0]


async def test_the_auth_string_cannot_be_guessed_from_a_copy_of_the_store(closed: ApiClient) -> None:
    tokens = [await begun(closed, AUTH) for _ in range(2)]

    def kept(tx: Any) -> list[str]:
        return [row[0] for row in tx.all("SELECT auth_hash FROM web_sessions")]

    found = await closed.services.db.read(kept)
    assert len(set(found)) == 2, "the same word is another one in each session"
    assert not {keys.hashed(AUTH), AUTH} & set(found)
    assert [await status(closed, token) for token in tokens] == [200, 200]


async def test_a_session_of_another_auth_string_opens_nothing(closed: ApiClient) -> None:
    token = await begun(closed, AUTH)
    found = await closed.services.db.read(lambda tx: tx.scalar("SELECT auth_hash FROM web_sessions"))
    await closed.services.db.write(lambda tx: tx.execute("UPDATE web_sessions SET auth_hash = ?", (found[::-1],)))
    assert await status(closed, token) == 401


async def test_a_key_has_so_many_sessions_and_the_oldest_ends(
    closed: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_sessions, "MOST_OF_ONE_KEY", 2)
    one, other = [await make_key(closed.services.db) for _ in range(2)]
    kept = await begun(closed, other)
    tokens = [await begun(closed, one) for _ in range(3)]
    assert [await status(closed, token) for token in (*tokens, kept)] == [401, 200, 200, 200]
