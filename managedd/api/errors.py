"""Error → response, in one table. Bodies have Prefect's shape: `exception_message`, and `detail`, which the CLI prints."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from managedd.errors import ErrorCode, ManagedError

STATUS: dict[ErrorCode, int] = {
    ErrorCode.INVALID: 422,
    ErrorCode.BAD_REQUEST: 400,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.CONFLICT: 409,
    ErrorCode.CHANGED: 412,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.LOCKED: 423,
    ErrorCode.TOO_MANY: 429,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.CONFIG: 500,
    ErrorCode.DRIVER: 503,
    ErrorCode.INTERNAL: 500,
}
"""Every code has a row (a test looks)."""

PASSING = frozenset({ErrorCode.TOO_MANY, ErrorCode.UNAVAILABLE, ErrorCode.DRIVER})
"""Codes whose answer says when to ask again."""
HIDDEN = frozenset({ErrorCode.CONFIG, ErrorCode.INTERNAL})
"""Codes whose message is for the operator's log only."""


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """`body` as JSON; rows' fragments are taken as they are."""
    return web.Response(
        body=orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS),
        status=status,
        headers=headers,
        content_type="application/json",
    )


def problem(status: int, message: str, *, detail: Any = None, headers: dict[str, str] | None = None) -> web.Response:
    """An error body in Prefect's shape."""
    body: dict[str, Any] = {"exception_message": message, "detail": message}
    if detail is not None:
        body["exception_detail"] = detail
    return json_response(body, status, headers)


def from_error(error: ManagedError) -> web.Response:
    """The response of a failure that has a name."""
    headers = {}
    if error.retry_after_seconds is not None or error.code in PASSING:
        headers["Retry-After"] = f"{error.retry_after_seconds or 1:g}"
    return problem(STATUS[error.code], error.message, detail=error.detail, headers=headers)


def invalid_request(errors: list[dict[str, Any]]) -> web.Response:
    """Prefect's 422: what was wrong where. The body is not echoed: it may hold a secret."""
    where = "; ".join(f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in errors[:3])
    return json_response(
        {
            "exception_message": "Invalid request received.",
            "exception_detail": errors,
            "request_body": None,
            "detail": f"Invalid request received: {where}",
        },
        422,
    )
