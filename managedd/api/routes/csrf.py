"""CSRF tokens: there are none, since no cookie is a credential here."""

from __future__ import annotations

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.errors import invalid
from managedd.wire.admin import CsrfToken


@operation("GET", "/csrf-token", tag="Root", returns=CsrfToken)
async def create_csrf_token(ctx: Context, client: str) -> None:
    """422 with the words that make Prefect's client go on without tokens."""
    raise invalid("CSRF protection is disabled.")
