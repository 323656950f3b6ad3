"""Which work pools may be made, changed and deleted: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.errors import forbidden, invalid
from managedd.orchestration import job_variables, pool_types

if TYPE_CHECKING:
    from collections.abc import Mapping

_RESERVED_PREFIX = "prefect"
_FEDERATED_IDENTITY = "federated_identity"
_RESERVED = "Work pools starting with 'Prefect' are reserved for internal use"


def is_reserved(name: str) -> bool:
    """Whether the name of a pool is Prefect's own."""
    return name.lower().startswith(_RESERVED_PREFIX)


def check_new(name: str, pool_type: str, template: Mapping[str, Any]) -> None:
    """Returns when such a pool may be made; else a FORBIDDEN or INVALID error says why not."""
    if is_reserved(name):
        raise forbidden(f"{_RESERVED}.")
    pool_types.check_offered(pool_type)
    _check_template(pool_type, template)


def check_change(name: str, pool_type: str, changes: Mapping[str, Any]) -> None:
    """Returns when the pool may change so; else a FORBIDDEN or INVALID error says why not."""
    if is_reserved(name) and changes.keys() - {"is_paused", "concurrency_limit"}:
        raise forbidden(f"{_RESERVED} and can only be updated to set concurrency limits or pause.")
    _check_template(pool_type, changes.get("base_job_template") or {})


def check_delete(name: str) -> None:
    """Returns when the pool may be deleted; else a FORBIDDEN error says why not."""
    if is_reserved(name):
        raise forbidden(f"{_RESERVED} and can not be deleted.")


def _check_template(pool_type: str, template: Mapping[str, Any]) -> None:
    """A managed template may declare federated identity, as Cloud's does, so that one taken over from there fits; not ask for it."""
    if not template:
        return
    job_variables.check_template(template)
    if not pool_types.is_managed(pool_type):
        return
    written = template["job_configuration"].get(_FEDERATED_IDENTITY)
    declared_only = written is None or (isinstance(written, str) and written.strip().startswith("{{"))
    if not declared_only or job_variables.defaults_from_schema(template).get(_FEDERATED_IDENTITY):
        raise invalid(
            f"base_job_template.{_FEDERATED_IDENTITY}: federated identity is not offered yet: this server issues no identity tokens. "
            "Take its default out of the template and give the flow credentials in a block."
        )
