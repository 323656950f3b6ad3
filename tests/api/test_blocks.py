"""Block types, schemas and documents, over the API and a real store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from managedd.model.secrets import MASK
from managedd.orchestration.block_schemas import checksum
from managedd.wire.blocks import BlockDocument, BlockSchema, BlockType

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def block_type(api: ApiClient, slug: str = "secret", **values: Any) -> dict[str, Any]:
    status, body = await api.post("/block_types/", {"name": slug.title(), "slug": slug, **values})
    assert status == 201, body
    BlockType.model_validate(body)
    return dict(body)


async def schema(
    api: ApiClient, kind: dict[str, Any], secrets: tuple[str, ...] = ("value",), version: str = "3.8.8", **fields: Any
) -> dict[str, Any]:
    body = {
        "fields": {"title": kind["name"], "block_type_slug": kind["slug"], "secret_fields": list(secrets), **fields},
        "block_type_id": kind["id"],
        "capabilities": ["get", kind["slug"]],
        "version": version,
    }
    status, made = await api.post("/block_schemas/", body)
    assert status in {200, 201}, made
    BlockSchema.model_validate(made)
    return dict(made)


async def document(
    api: ApiClient, of: dict[str, Any], data: dict[str, Any], name: str | None = "mine", **values: Any
) -> dict[str, Any]:
    body = {"name": name, "data": data, "block_schema_id": of["id"], "block_type_id": of["block_type_id"], **values}
    status, made = await api.post("/block_documents/", body)
    assert status == 201, made
    BlockDocument.model_validate(made)
    return dict(made)


async def clear(api: ApiClient, document_id: str) -> dict[str, Any]:
    status, body = await api.get(f"/block_documents/{document_id}?include_secrets=true")
    assert status == 200
    return dict(body)


# --- types ---------------------------------------------------------------------------------------------------------------


async def test_types_are_registered_once_and_found_by_slug(api: ApiClient) -> None:
    made = await block_type(api, description="d", logo_url="https://x/y.png")
    assert made["is_protected"] is False
    assert await api.get("/block_types/slug/secret") == (200, made)
    assert await api.get(f"/block_types/{made['id']}") == (200, made)
    status, body = await api.post("/block_types/", {"name": "Secret", "slug": "secret"})
    assert (status, body["detail"]) == (409, 'Block type with name "Secret" already exists')
    assert (await api.post("/block_types/", {"name": "Prefect X", "slug": "x"}))[0] == 403
    assert (await api.post("/block_types/", {"name": "X", "slug": "Not This"}))[0] == 422
    assert (await api.patch(f"/block_types/{made['id']}", {"description": "e"}))[0] == 204
    found = (await api.get("/block_types/slug/secret"))[1]
    assert (found["description"], found["logo_url"]) == ("e", "https://x/y.png")
    assert (await api.get("/block_types/slug/other"))[0] == 404
    assert await api.post("/block_types/install_system_block_types") == (200, None)


async def test_types_are_filtered_by_their_schemas(api: ApiClient) -> None:
    await schema(api, await block_type(api, "b"))
    await schema(api, await block_type(api, "a"))

    async def slugs(**body: Any) -> list[str]:
        status, found = await api.post("/block_types/filter", body)
        assert status == 200, found
        TypeAdapter(list[BlockType]).validate_python(found)
        return [each["slug"] for each in found]

    assert await slugs() == ["a", "b"]
    assert await slugs(block_types={"slug": {"any_": ["b"]}}) == ["b"]
    assert await slugs(block_types={"name": {"like_": "A"}}) == ["a"]
    assert await slugs(block_schemas={"block_capabilities": {"all_": ["a", "get"]}}) == ["a"]
    assert await api.get("/block_capabilities/") == (200, ["a", "b", "get"])


async def test_deleting_a_type_takes_everything_of_it(api: ApiClient) -> None:
    kind = await block_type(api)
    made = await schema(api, kind)
    doc = await document(api, made, {"value": "s"})
    assert (await api.delete(f"/block_types/{kind['id']}"))[0] == 204
    for path in (f"/block_types/{kind['id']}", f"/block_schemas/{made['id']}", f"/block_documents/{doc['id']}"):
        assert (await api.get(path))[0] == 404


# --- schemas -------------------------------------------------------------------------------------------------------------


async def test_schemas_are_found_by_the_clients_checksum(api: ApiClient) -> None:
    kind = await block_type(api)
    made = await schema(api, kind)
    assert made["checksum"] == checksum(made["fields"])
    assert made["block_type"] == kind
    path = f"/block_schemas/checksum/{made['checksum']}"
    assert await api.get(path + "?version=3.8.8") == (200, made)
    assert await api.get(path) == (200, made)
    assert (await api.get(path + "?version=4"))[0] == 404
    assert await api.get(f"/block_schemas/{made['id']}") == (200, made)
    again = {name: made[name] for name in ("fields", "block_type_id", "capabilities", "version")}
    assert await api.post("/block_schemas/", again) == (200, made)
    newer = await schema(api, kind, version="3.9")
    assert newer["id"] != made["id"]
    assert (await api.get(path))[1]["id"] == newer["id"]
    status, found = await api.post(
        "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
    )
    TypeAdapter(list[BlockSchema]).validate_python(found)
    assert (status, [each["id"] for each in found]) == (200, [newer["id"], made["id"]])
    assert (await api.delete(f"/block_schemas/{newer['id']}"))[0] == 204
    assert (await api.get(path))[1]["id"] == made["id"]


async def test_a_schema_needs_its_type_and_those_it_refers_to(api: ApiClient) -> None:
    status, _ = await api.post(
        "/block_schemas/", {"fields": {}, "block_type_id": "00000000-0000-4000-8000-00000000000f"}
    )
    assert status == 404
    kind = await block_type(api)
    references = {"inner": {"block_type_slug": "missing", "block_schema_checksum": "sha256:0"}}
    body = {"fields": {"block_schema_references": references}, "block_type_id": kind["id"]}
    status, answer = await api.post("/block_schemas/", body)
    assert status == 409
    assert "'missing'" in answer["detail"]


# --- documents -----------------------------------------------------------------------------------------------------------


async def test_secrets_are_masked_everywhere_unless_they_are_asked_for(api: ApiClient) -> None:
    made = await schema(api, await block_type(api))
    doc = await document(api, made, {"value": "hunter2", "note": "n"})
    assert doc["data"] == {"value": MASK, "note": "n"}
    assert doc["block_schema"] == made
    assert doc["block_type"]["slug"] == "secret"
    assert doc["block_type_name"] == "Secret"
    by_name = "/block_types/slug/secret/block_documents/name/mine"
    reads = [
        ("GET", f"/block_documents/{doc['id']}", None),
        ("GET", by_name, None),
        ("GET", "/block_types/slug/secret/block_documents", None),
        ("POST", "/block_documents/filter", {}),
    ]
    for method, path, body in reads:
        answer = (await api.call(method, path, body))[1]
        assert "hunter2" not in str(answer), path
        shown = answer[0] if isinstance(answer, list) else answer
        assert shown == doc
        asked = (f"{path}?include_secrets=true", None) if body is None else (path, {"include_secrets": True})
        answer = (await api.call(method, *asked))[1]
        shown = answer[0] if isinstance(answer, list) else answer
        BlockDocument.model_validate(shown)
        assert shown["data"] == {"value": "hunter2", "note": "n"}
    assert (await api.get("/block_types/slug/secret/block_documents/name/none"))[0] == 404
    assert (await api.get("/block_types/slug/none/block_documents/name/mine"))[0] == 404
    assert (await api.get("/block_types/slug/none/block_documents"))[0] == 404


async def test_nested_secrets_and_wildcards(api: ApiClient) -> None:
    made = await schema(api, await block_type(api), secrets=("value", "headers.*", "deep.key"))
    data = {
        "value": {"user": "u", "password": "p"},
        "headers": {"Authorization": "bearer"},
        "deep": {"key": "k", "open": 1},
    }
    doc = await document(api, made, data)
    assert doc["data"] == {
        "value": {"user": MASK, "password": MASK},
        "headers": {"Authorization": MASK},
        "deep": {"key": MASK, "open": 1},
    }
    assert (await clear(api, doc["id"]))["data"] == data


async def test_a_document_shows_those_it_refers_to(api: ApiClient) -> None:
    inner_schema = await schema(api, await block_type(api, "inner"))
    outer_schema = await schema(api, await block_type(api, "outer"), secrets=("inner.value",))
    inner = await document(api, inner_schema, {"value": "hunter2", "open": 1}, "inside")
    reference = {"$ref": {"block_document_id": inner["id"].upper()}}
    outer = await document(api, outer_schema, {"inner": reference, "n": 2}, "outside")
    assert outer["data"] == {"inner": {"value": MASK, "open": 1}, "n": 2}
    assert outer["block_document_references"] == {
        "inner": {
            "block_document": {
                "id": inner["id"],
                "name": "inside",
                "block_type": inner["block_type"],
                "is_anonymous": False,
                "block_document_references": {},
            }
        }
    }
    assert (await clear(api, outer["id"]))["data"]["inner"] == {"value": "hunter2", "open": 1}
    status, body = await api.patch(
        f"/block_documents/{inner['id']}", {"data": {"back": {"$ref": {"block_document_id": outer["id"]}}}}
    )
    assert status == 400
    assert "cycle" in body["detail"]
    itself = {"data": {"me": {"$ref": {"block_document_id": inner["id"]}}}}
    assert (await api.patch(f"/block_documents/{inner['id']}", itself))[0] == 400
    assert (await api.delete(f"/block_documents/{inner['id']}"))[0] == 204
    assert (await clear(api, outer["id"]))["data"] == {"n": 2}


@pytest.mark.parametrize(
    "target",
    [{}, "text", {"block_document_id": "no-uuid"}, {"block_document_id": "00000000-0000-4000-8000-00000000000f"}],
)
async def test_a_reference_must_lead_somewhere(api: ApiClient, target: Any) -> None:
    made = await schema(api, await block_type(api))
    body = {
        "name": "d",
        "data": {"x": {"$ref": target}},
        "block_schema_id": made["id"],
        "block_type_id": made["block_type_id"],
    }
    assert (await api.post("/block_documents/", body))[0] == 400
    assert await api.post("/block_documents/count", {}) == (200, 0)


async def test_references_that_multiply_are_bounded(api: ApiClient) -> None:
    made = await schema(api, await block_type(api))
    last = (await document(api, made, {"value": 1}, "d0"))["id"]
    for level in range(1, 13):
        data = {str(key): {"$ref": {"block_document_id": last}} for key in range(2)}
        last = (await document(api, made, data, f"d{level}"))["id"]
    body = {"name": "x", "block_schema_id": made["id"], "block_type_id": made["block_type_id"]}
    body["data"] = {str(key): {"$ref": {"block_document_id": last}} for key in range(2)}
    status, answer = await api.post("/block_documents/", body)
    assert status == 400
    assert "too many" in answer["detail"]
    assert (await api.get("/block_types/slug/secret/block_documents/name/x"))[0] == 404


async def test_a_patch_merges_and_a_mask_keeps_its_secret(api: ApiClient) -> None:
    made = await schema(api, await block_type(api))
    doc = await document(api, made, {"value": "hunter2", "a": 1, "b": 2})
    path = f"/block_documents/{doc['id']}"
    assert (await api.patch(path, {"data": {"value": MASK, "a": 3}}))[0] == 204
    assert (await clear(api, doc["id"]))["data"] == {"value": "hunter2", "a": 3, "b": 2}
    assert (await api.patch(path, {"data": {"value": "new"}, "merge_existing_data": False}))[0] == 204
    assert (await clear(api, doc["id"]))["data"] == {"value": "new"}
    newer = await schema(api, doc["block_type"], version="4")
    assert (await api.patch(path, {"block_schema_id": newer["id"]}))[0] == 204
    found = await clear(api, doc["id"])
    assert (found["block_schema_id"], found["data"]) == (newer["id"], {"value": "new"})
    foreign = await schema(api, await block_type(api, "foreign"))
    assert (await api.patch(path, {"block_schema_id": foreign["id"]}))[0] == 400
    assert (await api.patch(f"/block_documents/{made['id']}", {"data": {}}))[0] == 404


async def test_a_name_is_taken_once_for_each_type(api: ApiClient) -> None:
    made = await schema(api, await block_type(api))
    foreign = await schema(api, await block_type(api, "foreign"))
    await document(api, made, {"value": 1})
    await document(api, foreign, {"value": 1})
    body = {"name": "mine", "data": {}, "block_schema_id": made["id"], "block_type_id": made["block_type_id"]}
    assert (await api.post("/block_documents/", body))[0] == 409
    assert (await api.post("/block_documents/", {**body, "name": "o", "block_schema_id": foreign["id"]}))[0] == 400
    status, answer = await api.post("/block_documents/", {**body, "name": None})
    assert status == 422
    assert answer["request_body"] is None


async def test_anonymous_documents_are_found_only_when_asked_for(api: ApiClient) -> None:
    made = await schema(api, await block_type(api))
    await document(api, made, {"value": 1}, "b")
    await document(api, made, {"value": 1}, "a")
    hidden = await document(api, made, {"value": 1}, None, is_anonymous=True)
    assert hidden["name"].startswith("anonymous-")

    async def names(**body: Any) -> list[str]:
        status, found = await api.post("/block_documents/filter", body)
        assert status == 200, found
        TypeAdapter(list[BlockDocument]).validate_python(found)
        return [each["name"] for each in found]

    assert await names() == ["a", "b"]
    assert await names(sort="NAME_DESC", limit=1) == ["b"]
    assert await names(block_documents={"is_anonymous": {"eq_": True}}) == [hidden["name"]]
    assert await names(block_documents={"is_anonymous": None, "name": {"like_": "a"}}) == ["a", hidden["name"]]
    assert await names(block_types={"slug": {"any_": ["none"]}}) == []
    assert await api.post("/block_documents/count", {}) == (200, 2)
    assert await api.post("/block_documents/count", {"block_documents": {"is_anonymous": None}}) == (200, 3)
    assert await api.get("/block_types/slug/secret/block_documents") == (
        200,
        (await api.post("/block_documents/filter", {}))[1],
    )


async def test_another_workspace_sees_no_blocks_of_it(api: ApiClient, other: ApiClient) -> None:
    kind = await block_type(api)
    made = await schema(api, kind)
    doc = await document(api, made, {"value": "hunter2"})
    for path in ("/block_types/filter", "/block_schemas/filter", "/block_documents/filter"):
        assert await other.post(path, {}) == (200, [])
    assert await other.get("/block_capabilities/") == (200, [])
    assert await other.post("/block_documents/count", {}) == (200, 0)
    for method, path, body in (
        ("GET", f"/block_types/{kind['id']}", None),
        ("GET", "/block_types/slug/secret", None),
        ("GET", "/block_types/slug/secret/block_documents", None),
        ("GET", "/block_types/slug/secret/block_documents/name/mine?include_secrets=true", None),
        ("PATCH", f"/block_types/{kind['id']}", {"description": "x"}),
        ("DELETE", f"/block_types/{kind['id']}", None),
        ("GET", f"/block_schemas/{made['id']}", None),
        ("GET", f"/block_schemas/checksum/{made['checksum']}", None),
        ("DELETE", f"/block_schemas/{made['id']}", None),
        ("GET", f"/block_documents/{doc['id']}?include_secrets=true", None),
        ("PATCH", f"/block_documents/{doc['id']}", {"data": {"value": 1}}),
        ("DELETE", f"/block_documents/{doc['id']}", None),
    ):
        assert (await other.call(method, path, body))[0] == 404, (method, path)
    theirs = await schema(other, await block_type(other))
    body = {"name": "d", "data": {"x": {"$ref": {"block_document_id": doc["id"]}}}, "block_schema_id": theirs["id"]}
    status, answer = await other.post("/block_documents/", {**body, "block_type_id": theirs["block_type_id"]})
    assert status == 400
    assert "hunter2" not in str(answer)
    assert (await clear(api, doc["id"]))["data"] == {"value": "hunter2"}
