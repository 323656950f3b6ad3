"""`managedd openapi`."""

from __future__ import annotations

from managedd.cli.options import HERE, Where
from managedd.cli.output import print_json


def openapi(*, where: Where = HERE) -> None:
    """Print the API's OpenAPI document; no daemon is needed."""
    where.settings()
    from managedd.api.openapi import document
    from managedd.api.surface import all_operations

    print_json(document(all_operations()))
