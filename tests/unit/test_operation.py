"""Operations: a signature is the declaration, and binding says of every error where it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import pytest
from multidict import MultiDict
from pydantic import BaseModel, Field

from managedd.api.operation import EMBED, QUERY, BodyOf, InvalidRequest, Operation, SentAs, operation, operations

if TYPE_CHECKING:
    from collections.abc import Mapping

SOME_ID = "01890000-0000-7000-8000-000000000001"


class Thing(BaseModel):
    name: str
    size: int = 1


Size = Annotated[int, Field(ge=0, le=200)]
Counts = Annotated[int, BodyOf(type=list[int], plain=lambda body: len(body) if body.isdigit() else None, convert=sum)]


@operation("GET", "/things/{id}/parts/{part}", tag="Things")
async def read_part(
    ctx: Any,
    id: UUID,
    part: str,
    size: Size = 7,
    kinds: list[str] | None = None,
    token: Annotated[str | None, SentAs("page-token")] = None,
) -> None:
    """A part."""


@operation("POST", "/things/", tag="Things", status=201)
async def create_thing(ctx: Any, thing: Thing) -> None:
    """The thing exists.

    And more is said.
    """


@operation("POST", "/things/maybe", tag="Things")
async def create_maybe(ctx: Any, thing: Thing | None = None) -> None:
    """One body, which may be missing."""


@operation("POST", "/things/filter", tag="Things")
async def read_things(
    ctx: Any, *, sort: str = "ID_DESC", limit: Size | None = None, offset: Size = 0, thing: Thing | None = None
) -> None:
    """Several members of a body, all with defaults."""


@operation("POST", "/things/{id}/move", tag="Things")
async def move_thing(
    ctx: Any, id: UUID, *, to: Thing, force: bool = False, dry: Annotated[bool, QUERY] = False
) -> None:
    """A path, a query and an embedded body."""


@operation("POST", "/things/only", tag="Things")
async def only_member(ctx: Any, *, name: Annotated[str, EMBED]) -> None:
    """One member that is embedded all the same."""


@operation("POST", "/counts/", tag="Things")
async def read_counts(ctx: Any, *, counts: Counts) -> None:
    """A body that the handler is given as a number."""


FOUND = {found.handler.__name__: found for found in operations(sys.modules[__name__])}


def bind(
    name: str, path: Mapping[str, str] | None = None, query: list[tuple[str, str]] | None = None, body: bytes = b""
) -> dict[str, Any]:
    return FOUND[name].bind(path or {}, MultiDict(query or []), body)


def errors(*arguments: Any, **named: Any) -> list[tuple[str, tuple[Any, ...]]]:
    with pytest.raises(InvalidRequest) as caught:
        bind(*arguments, **named)
    assert all(set(error) == {"type", "loc", "msg"} for error in caught.value.errors)
    return [(error["type"], tuple(error["loc"])) for error in caught.value.errors]


def test_they_are_found_in_the_order_of_the_source() -> None:
    assert list(FOUND) == [
        "read_part", "create_thing", "create_maybe", "read_things", "move_thing", "only_member", "read_counts",
    ]  # fmt: skip


def test_what_is_said_of_them() -> None:
    made: Operation = FOUND["create_thing"]
    assert (made.method, made.path, made.tag, made.status) == ("POST", "/things/", "Things", 201)
    assert (made.summary, made.description) == ("The thing exists.", "And more is said.")
    assert made.scoped
    assert not made.public
    assert not made.early


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("read_part", "read_part_things__id__parts__part__get"),
        ("create_thing", "create_thing_things__post"),
        ("move_thing", "move_thing_things__id__move_post"),
    ],
)
def test_ids_are_fastapis(name: str, id_: str) -> None:
    assert FOUND[name].id == id_


class TestPathAndQuery:
    PATH = {"id": SOME_ID.upper(), "part": "a/b"}  # noqa: RUF012 - a constant

    def test_values_are_of_their_types_and_defaults_are_there(self) -> None:
        assert bind("read_part", self.PATH) == {
            "id": UUID(SOME_ID), "part": "a/b", "size": 7, "kinds": None, "token": None,
        }  # fmt: skip

    def test_a_list_is_repeated_and_a_name_may_be_the_clients(self) -> None:
        query = [("kinds", "x"), ("kinds", "y"), ("size", "3"), ("page-token", "t"), ("unknown", "z")]
        bound = bind("read_part", self.PATH, query)
        assert (bound["kinds"], bound["size"], bound["token"]) == (["x", "y"], 3, "t")
        assert "unknown" not in bound

    def test_every_error_is_told_with_its_place(self) -> None:
        assert errors("read_part", {"id": "no", "part": "p"}, [("size", "201")]) == [
            ("uuid_parsing", ("path", "id")),
            ("less_than_equal", ("query", "size")),
        ]

    def test_the_input_is_not_repeated(self) -> None:
        with pytest.raises(InvalidRequest) as caught:
            bind("read_part", {"id": "s3cret", "part": "p"})
        assert "s3cret" not in str({**caught.value.errors[0], "msg": ""})


class TestWholeBody:
    def test_one_parameter_is_the_body(self) -> None:
        assert bind("create_thing", body=b'{"name": "n"}') == {"thing": Thing(name="n")}

    @pytest.mark.parametrize("body", [b"", b"  \n"])
    def test_a_missing_one_is_an_error_or_the_default(self, body: bytes) -> None:
        assert errors("create_thing", body=body) == [("missing", ("body",))]
        assert bind("create_maybe", body=body) == {"thing": None}

    def test_errors_have_their_place_in_it(self) -> None:
        assert errors("create_thing", body=b'{"size": "x"}') == [
            ("missing", ("body", "name")),
            ("int_parsing", ("body", "size")),
        ]
        assert errors("create_thing", body=b"{") == [("json_invalid", ("body",))]
        assert errors("create_thing", body=b"\xff") == [("json_invalid", ("body",))]
        assert errors("create_thing", body=b"[]") == [("model_type", ("body",))]


class TestEmbeddedBody:
    DEFAULTS = {"sort": "ID_DESC", "limit": None, "offset": 0, "thing": None}  # noqa: RUF012 - a constant

    @pytest.mark.parametrize("body", [b"", b"{}", b'{"sort": null, "limit": null, "offset": null, "thing": null}'])
    def test_what_is_missing_or_null_has_its_default(self, body: bytes) -> None:
        assert bind("read_things", body=body) == self.DEFAULTS

    def test_members_are_of_their_types_and_unknown_ones_ignored(self) -> None:
        bound = bind("read_things", body=b'{"limit": 3, "thing": {"name": "n"}, "never heard of": 1}')
        assert bound == {**self.DEFAULTS, "limit": 3, "thing": Thing(name="n")}

    def test_bounds_hold(self) -> None:
        assert errors("read_things", body=b'{"limit": 201, "offset": -1}') == [
            ("less_than_equal", ("body", "limit")),
            ("greater_than_equal", ("body", "offset")),
        ]

    def test_a_required_member_may_not_be_missing_or_null(self) -> None:
        path = {"id": SOME_ID}
        assert errors("move_thing", path, body=b"{}") == [("missing", ("body", "to"))]
        assert errors("move_thing", path) == [("missing", ("body",))]
        assert errors("move_thing", path, body=b'{"to": null}') == [("model_type", ("body", "to"))]

    def test_path_query_and_body_come_together_also_their_errors(self) -> None:
        bound = bind("move_thing", {"id": SOME_ID}, [("dry", "true")], b'{"to": {"name": "n"}, "force": null}')
        assert bound == {"id": UUID(SOME_ID), "to": Thing(name="n"), "force": False, "dry": True}
        found = errors("move_thing", {"id": "x"}, [("dry", "perhaps")], b'{"to": {}}')
        assert [place for _, place in found] == [("path", "id"), ("query", "dry"), ("body", "to", "name")]

    def test_a_single_member_can_be_embedded(self) -> None:
        assert bind("only_member", body=b'{"name": "n"}') == {"name": "n"}
        assert errors("only_member", body=b'"n"') == [("model_type", ("body",))]

    def test_a_body_may_be_read_without_the_validator_where_it_is_plain(self) -> None:
        assert bind("read_counts", body=b"111") == {"counts": 3}
        assert bind("read_counts", body=b"[5, 6]") == {"counts": 11}
        assert errors("read_counts", body=b'["x"]') == [("int_parsing", ("body", 0))]
        assert errors("read_counts") == [("missing", ("body",))]
        assert FOUND["read_counts"].signature.body_type == list[int]

    def test_a_part_of_a_body_is_of_its_own_type(self) -> None:
        @operation("POST", "/parts/", tag="Things")
        async def parts(ctx: Any, *, counts: Counts, other: int = 1) -> None:
            """Two members."""

        module = type(sys)("parts")
        module.parts = parts  # type: ignore[attr-defined]
        (declared,) = operations(module)
        with pytest.raises(ValueError, match="only a whole body"):
            declared.bind({}, {}, b"{}")

    def test_its_model_is_called_as_fastapi_calls_it(self) -> None:
        assert FOUND["read_things"].signature.body_type.__name__ == "Body_read_things_things_filter_post"
