"""Doctor: whether this host can run flows, as `managedd doctor` finds out."""

from __future__ import annotations

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.store.rows import Wire
from managedd.wire.doctor import DoctorReport, DoctorState


@operation("GET", "/managed/doctor", tag="Managed", returns=DoctorState, scoped=False)
async def read_examination(ctx: Context) -> Wire:
    """Read the report of the last examination of the host, and whether another one is under way."""
    made = ctx.services.examinations
    return {"report": made.last, "is_under_way": made.is_under_way}


@operation("POST", "/managed/doctor", tag="Managed", returns=DoctorReport, scoped=False)
async def examine_host(ctx: Context) -> Wire:
    """Examine the host, which takes some seconds and disturbs nothing that runs. 409 while another examination is under way."""
    return await ctx.services.examinations.make()
