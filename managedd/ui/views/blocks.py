"""Blocks: all of them, the types that there are, one block, and the form that makes or changes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from managedd.errors import forbidden
from managedd.ui import block_forms, listing
from managedd.ui.page import page
from managedd.ui.views.settings import tabs
from managedd.ui.words import segment
from managedd.ui.written import as_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.ui.asking import Ask

MAX_CHOICES: Final = 1_000
"""Of blocks that another one may refer to."""
_CREATE: Final = "POST /block_documents/"
_CHANGE: Final = "PATCH /block_documents/{id}"


@page("/blocks", template="settings_blocks.html", section="settings")
@page("/settings/blocks", template="settings_blocks.html", section="settings")
async def blocks(ask: Ask) -> dict[str, Any]:
    """The workspace's blocks, whose secrets are masked."""
    chosen = listing.read(ask.query)
    # A filter of one's own has to say again that blocks without a name are left out.
    wanted = {"block_documents": {"is_anonymous": {"eq_": False}, **chosen.of_name("found").get("found", {})}}
    return {
        "title": "Blocks",
        **tabs(ask, "blocks"),
        "chosen": chosen,
        "blocks": await ask.post("/block_documents/filter", {**wanted, **chosen.bounds, "sort": "NAME_ASC"}),
        "total": await ask.post("/block_documents/count", wanted),
        "may_create": ask.may(_CREATE),
    }


@page("/blocks/catalog", template="block_catalog.html", section="settings")
@page("/settings/blocks/catalog", template="block_catalog.html", section="settings")
async def block_catalog(ask: Ask) -> dict[str, Any]:
    """The types that clients have registered, to make a block of."""
    chosen = listing.read(ask.query)
    wanted = chosen.of_name("block_types")
    found = await listing.whole(lambda bounds: ask.post("/block_types/filter", {**wanted, **bounds}))
    return {
        "title": "New block",
        **tabs(ask, "blocks"),
        "chosen": chosen,
        "types": chosen.page(found),
        "total": len(found),
        "may_create": ask.may(_CREATE),
    }


@page("/blocks/catalog/{slug}", template="block_form.html", section="settings", topics=())
@page("/blocks/catalog/{slug}/create", template="block_form.html", section="settings", topics=())
@page("/settings/blocks/catalog/{slug}/create", template="block_form.html", section="settings", topics=())
async def new_block(ask: Ask, slug: str) -> dict[str, Any]:
    """A form made from the newest schema of the type."""
    if not ask.may(_CREATE):
        raise forbidden("Your key may not make blocks; a key with the role developer may.")
    kind = await ask.get(f"/block_types/slug/{segment(slug)}")
    newest = {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}, "limit": 1}
    found = await ask.post("/block_schemas/filter", newest)
    schema = found[0] if found else None
    return {
        "title": f"New {kind['name']} block",
        **tabs(ask, "blocks"),
        "kind": kind,
        "schema": schema,
        "block": None,
        **(await _form(ask, schema["fields"], None) if schema else {"form": None, "missing": []}),
    }


@page("/blocks/block/{id}", template="settings_block.html", section="settings")
async def block(ask: Ask, id: str) -> dict[str, Any]:
    """One block, and how a flow loads it."""
    found = await ask.get(f"/block_documents/{id}")
    kind = found["block_type"] or {}
    name, slug = found["name"] or "", kind.get("slug", "")
    data = block_forms.values_of(found, found["block_schema"]["fields"])
    refer = {key: each["block_document"] for key, each in found["block_document_references"].items()}
    example = (kind.get("code_example") or "").replace("BLOCK_NAME", name)
    return {
        "title": name or "Block",
        **tabs(ask, "blocks"),
        "block": found,
        "slug": slug,
        "data": {key: _said(value) for key, value in data.items() if key not in refer},
        "refer": refer,
        "example": example,
        "may_change": ask.may(_CHANGE),
    }


@page("/blocks/block/{id}/edit", template="block_form.html", section="settings", topics=())
async def edit_block(ask: Ask, id: str) -> dict[str, Any]:
    """A form made from the block's own schema; what is secret stays when nothing is written."""
    if not ask.may(_CHANGE):
        raise forbidden("Your key may not change blocks; a key with the role developer may.")
    found = await ask.get(f"/block_documents/{id}")
    kind, schema = found["block_type"], found["block_schema"]
    return {
        "title": f"Edit {found['name'] or 'block'}",
        **tabs(ask, "blocks"),
        "kind": kind,
        "schema": schema,
        "block": found,
        **await _form(ask, schema["fields"], found),
    }


async def _form(ask: Ask, schema: Mapping[str, Any], document: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields, and the types of blocks that have to be made before; with `?as=json` there is one field for all of it."""
    values = None if document is None else block_forms.values_of(document, schema)
    if ask.query.get("as") == "json":
        field = block_forms.as_json(values or {}, schema)
        return {"form": block_forms.BlockForm(fields=(field,), kept={}), "kept": "", "missing": [], "is_json": True}
    refer = block_forms.references(schema)
    among = {each.name: await _choices(ask, each.slugs) for each in refer}
    form = block_forms.form(schema, among, values)
    return {
        "form": form,
        "kept": as_json(dict(form.kept)),
        "missing": sorted({slug for each in refer if not among[each.name] for slug in each.slugs}),
        "is_json": False,
    }


async def _choices(ask: Ask, slugs: tuple[str, ...]) -> list[tuple[str, str]]:
    """The blocks of these types, as (id, name)."""
    wanted = {"block_types": {"slug": {"any_": list(slugs)}}, "sort": "BLOCK_TYPE_AND_NAME_ASC"}
    found = await listing.whole(
        lambda bounds: ask.post("/block_documents/filter", {**wanted, **bounds}), most=MAX_CHOICES
    )
    is_one = len(slugs) == 1
    return [(each["id"], each["name"] if is_one else f"{each['block_type']['slug']}/{each['name']}") for each in found]


def _said(value: Any) -> str:
    return value if isinstance(value, str) else as_json(value, indent=2)
