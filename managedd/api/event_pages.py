"""Pages of an event query: a token holds the query and how far it was read."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import TYPE_CHECKING, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from managedd.api.forwarded import prefix
from managedd.errors import ManagedError, forbidden, invalid
from managedd.wire.base import Id
from managedd.wire.filters.events import EventFilter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web

PAGE_EVENTS: Final = 50
MAX_PAGE_EVENTS: Final = 200
"""The most that may be asked for: Prefect's client asks for 100, of which its own server gives none (its bound is 50)."""
TOKEN_MAX_CHARS: Final = 14 * 1024
"""The longest token: with what stands before it, its URL fits the longest request line that the daemon reads (16 KiB)."""
PLACE_MAX_BYTES: Final = 1024 * 1024
"""The largest place: a token that is short may unfold to anything."""


def not_valid() -> ManagedError:
    """The error for a token that we never gave."""
    return forbidden("The page token is not valid")


class Place(BaseModel):
    """A page of a query. What was counted for the first page is not counted again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filter: EventFilter
    count: int = Field(ge=0)
    page_size: int = Field(ge=0, le=MAX_PAGE_EVENTS)
    offset: int = Field(ge=0, le=2**53)
    head: Id

    @classmethod
    def of_token(cls, token: str) -> Self:
        """The place that a token names. Raises ManagedError(FORBIDDEN), as Prefect does, for one that we never gave."""
        try:
            unfolding = zlib.decompressobj()
            place = unfolding.decompress(base64.urlsafe_b64decode(token), PLACE_MAX_BYTES)
            return cls.model_validate_json(place)
        except (binascii.Error, zlib.error, ValidationError, ValueError):
            raise not_valid() from None

    def token(self) -> str:
        """The place as one word for a URL. Raises ManagedError(INVALID) when it has no room there."""
        place = self.model_dump_json(exclude_none=True).encode()
        token = base64.urlsafe_b64encode(zlib.compress(place, 9)).decode()
        if len(token) > TOKEN_MAX_CHARS or len(place) > PLACE_MAX_BYTES:
            raise invalid(
                "The filter is too large for more than one page: its next page would have a token of "
                f"{len(token):,} characters, and {TOKEN_MAX_CHARS:,} are allowed. Ask for fewer ids, names or labels at once, or for a shorter time"
            )
        return token


def next_page(request: web.Request, place: Place, trusted_proxies: Iterable[str]) -> str | None:
    """The URL of the page after `place`, below the same prefix as the request's; None at the end."""
    offset = place.offset + place.page_size
    if place.page_size == 0 or offset >= place.count:
        return None
    path = prefix(request, trusted_proxies) + request.rel_url.path.removesuffix("/").removesuffix("/next")
    following = place.model_copy(update={"offset": offset})
    # The client asks for just this URL, with its key: where a trusted proxy speaks TLS with it, it must not be told to leave that out.
    try:
        origin = request.url.origin()
    except ValueError:
        raise invalid("The Host header names no host, so there is no URL of the next page") from None
    return str(origin.with_path(f"{path}/next").with_query({"page-token": following.token()}))
