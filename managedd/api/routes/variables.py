"""Variables: named JSON values."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from managedd.api.context import Context
from managedd.api.operation import EMBED, operation
from managedd.errors import conflict, not_found
from managedd.store import rows
from managedd.store.resources import VARIABLE
from managedd.store.transaction import IntegrityFault
from managedd.wire.base import Limit, Offset
from managedd.wire.filters.variables import VariableFilter
from managedd.wire.sorting import VariableSort
from managedd.wire.variables import Variable, VariableCreate, VariableUpdate

TAG = "Variables"


@operation("POST", "/variables/", tag=TAG, returns=Variable, status=201)
async def create_variable(ctx: Context, variable: VariableCreate) -> rows.Wire:
    """The variable exists. 409 when there is one of that name."""

    def body(tx: Any) -> rows.Wire:
        try:
            return rows.get(tx, VARIABLE, rows.insert(tx, VARIABLE, variable.model_dump()))
        except IntegrityFault:
            raise conflict(f"A variable with the name {variable.name!r} already exists.") from None

    return await ctx.write(body)


@operation("GET", "/variables/{id}", tag=TAG, returns=Variable)
async def read_variable(ctx: Context, id: UUID) -> rows.Wire:
    """Get a variable by id."""
    return await ctx.look(lambda tx: rows.get(tx, VARIABLE, id))


@operation("GET", "/variables/name/{name}", tag=TAG, returns=Variable)
async def read_variable_by_name(ctx: Context, name: str) -> rows.Wire:
    """Get a variable by name."""
    found = await ctx.look(lambda tx: rows.by(tx, VARIABLE, name=name))
    if found is None:
        raise not_found(VARIABLE.label, name)
    return found


@operation("POST", "/variables/filter", tag=TAG, returns=list[Variable])
async def read_variables(
    ctx: Context,
    *,
    limit: Limit = None,
    offset: Offset = 0,
    variables: VariableFilter | None = None,
    sort: VariableSort = VariableSort.NAME_ASC,
) -> list[rows.Wire]:
    """Query for variables."""
    return await ctx.read(lambda tx: rows.find(tx, VARIABLE, [(VARIABLE, variables)], sort, limit, offset))


@operation("POST", "/variables/count", tag=TAG, returns=int)
async def count_variables(ctx: Context, *, variables: Annotated[VariableFilter | None, EMBED] = None) -> int:
    """How many variables the filter admits."""
    return await ctx.read(lambda tx: rows.count(tx, VARIABLE, [(VARIABLE, variables)]))


@operation("PATCH", "/variables/{id}", tag=TAG, status=204)
async def update_variable(ctx: Context, id: UUID, variable: VariableUpdate) -> None:
    """The variable has the given values; a null value is a value, a null name or tags is no change."""
    await ctx.change(lambda tx: _update(tx, id, variable), lambda tx: rows.get(tx, VARIABLE, id))


@operation("PATCH", "/variables/name/{name}", tag=TAG, status=204)
async def update_variable_by_name(ctx: Context, name: str, variable: VariableUpdate) -> None:
    """The variable has the given values; a null value is a value, a null name or tags is no change."""
    await ctx.write(lambda tx: _update(tx, rows.need(tx, VARIABLE, name=name)["id"], variable))


def _update(tx: Any, id_: UUID | str, variable: VariableUpdate) -> None:
    changes = variable.model_dump(exclude_unset=True)
    kept = {name: value for name, value in changes.items() if value is not None or name == "value"}
    try:
        rows.patch(tx, VARIABLE, id_, kept)
    except IntegrityFault:
        raise conflict(f"A variable with the name {variable.name!r} already exists.") from None


@operation("DELETE", "/variables/{id}", tag=TAG, status=204)
async def delete_variable(ctx: Context, id: UUID) -> None:
    """The variable is gone."""
    await ctx.write(lambda tx: rows.delete(tx, VARIABLE, id))


@operation("DELETE", "/variables/name/{name}", tag=TAG, status=204)
async def delete_variable_by_name(ctx: Context, name: str) -> None:
    """The variable is gone."""
    await ctx.write(lambda tx: rows.delete(tx, VARIABLE, rows.need(tx, VARIABLE, name=name)["id"]))
