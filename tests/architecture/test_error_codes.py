"""Each error code means one thing everywhere."""

from __future__ import annotations

from http import HTTPStatus

from managedd.api.errors import HIDDEN, STATUS, from_error
from managedd.errors import ErrorCode, ManagedError

ASK_AGAIN = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(ErrorCode)
    assert all(HTTPStatus(status) >= HTTPStatus.BAD_REQUEST for status in STATUS.values())


def test_what_is_hidden_is_a_fault_of_the_server() -> None:
    assert all(STATUS[code] == HTTPStatus.INTERNAL_SERVER_ERROR for code in HIDDEN)
    assert {code for code, status in STATUS.items() if status == HTTPStatus.INTERNAL_SERVER_ERROR} == HIDDEN


def test_whoever_may_ask_again_is_told_when() -> None:
    for code in ErrorCode:
        response = from_error(ManagedError(code, "x"))
        assert ("Retry-After" in response.headers) == (STATUS[code] in ASK_AGAIN), code
