"""The router: literals before parameters, encoded slashes inside their segment, and what a method is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from managedd.api import surface
from managedd.api.operation import Operation
from managedd.api.routing import MethodNotAllowed, Router, first_segment


async def handle(ctx: Any) -> None:
    """Never called."""


def declared(method: str, path: str) -> Operation:
    return Operation(
        method=method, path=path, tag="t", status=200, handler=handle, returns=None, summary="", description=""
    )


@pytest.fixture(scope="module")
def router() -> Router:
    return Router(
        declared(method, path)
        for method, path in (
            ("POST", "/things/"),
            ("GET", "/things/{id}"),
            ("DELETE", "/things/{id}"),
            ("POST", "/things/filter"),
            ("GET", "/things/name/{name}"),
            ("POST", "/things/{id}/move"),
            ("GET", "/things/{flow}/{name}"),
        )
    )


@pytest.mark.parametrize(
    ("method", "raw", "path", "values"),
    [
        ("POST", "/things", "/things/", {}),
        ("POST", "/things/", "/things/", {}),
        ("POST", "/things/filter", "/things/filter", {}),
        ("GET", "/things/7/", "/things/{id}", {"id": "7"}),
        ("HEAD", "/things/7", "/things/{id}", {"id": "7"}),
        ("GET", "/things/name/7", "/things/name/{name}", {"name": "7"}),
        ("GET", "/things/a%2Fb", "/things/{id}", {"id": "a/b"}),
        ("GET", "/things/a%20b%C3%BC/100%25", "/things/{flow}/{name}", {"flow": "a bü", "name": "100%"}),
        ("POST", "/things/7/move", "/things/{id}/move", {"id": "7"}),
        # No GET stands at the literal, so the parameter beside it is meant.
        ("GET", "/things/filter", "/things/{id}", {"id": "filter"}),
        ("GET", "/things/7/move", "/things/{flow}/{name}", {"flow": "7", "name": "move"}),
        ("GET", "/things/other/7", "/things/{flow}/{name}", {"flow": "other", "name": "7"}),
    ],
)
def test_a_path_leads_to_its_operation(
    router: Router, method: str, raw: str, path: str, values: dict[str, str]
) -> None:
    matched = router.match(method, raw)
    assert matched is not None
    assert (matched[0].path, matched[1]) == (path, values)


@pytest.mark.parametrize("raw", ["/", "", "/nothing", "/things/1/2/3", "/things/name/x/y"])
def test_an_unknown_path_leads_nowhere(router: Router, raw: str) -> None:
    assert router.match("GET", raw) is None


@pytest.mark.parametrize(
    ("method", "raw", "allowed"),
    [
        ("PATCH", "/things/7", ["DELETE", "GET"]),
        ("GET", "/things/", ["POST"]),
        ("PUT", "/things/filter", ["DELETE", "GET", "POST"]),
    ],
)
def test_a_known_path_says_which_methods_it_has(router: Router, method: str, raw: str, allowed: list[str]) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        router.match(method, raw)
    assert caught.value.allowed == allowed


def test_one_path_has_one_operation_of_a_method() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        Router([declared("GET", "/things/{id}"), declared("GET", "/things/{name}/")])


def test_every_operation_that_is_served_is_found_by_its_own_path() -> None:
    """Also where no other of its module was asked for: the table of first segments is complete."""
    for operation in surface.all_operations():
        raw = "/".join("value" if part.startswith("{") else part for part in operation.path.split("/"))
        matched = surface.match(operation.method, raw)
        assert matched is not None
        assert matched[0] is operation
        assert set(matched[1].values()) <= {"value"}


def test_the_table_of_first_segments_names_none_that_nobody_serves() -> None:
    served = {first_segment(operation.path) for operation in surface.all_operations()}
    assert {segment for segments in surface.MODULES.values() for segment in segments} == served


@pytest.mark.parametrize("raw", ["", "/", "/nothing", "/nothing/flows", "/flow%73/filter"])
def test_a_path_that_nobody_serves_leads_nowhere(raw: str) -> None:
    assert surface.match("POST", raw) is None
