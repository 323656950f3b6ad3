"""Whatever a template calls secret, and whatever is written: rows show none of it, and who opens them gets back what was written."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from managedd.model.secret_schemas import concrete, secret_paths
from managedd.model.secrets import MASK, masked
from managedd.store import concealing, rows, sealed
from managedd.store.resources import DEPLOYMENT, FLOW, WORK_POOL, WORK_QUEUE
from managedd.store.workspaces import ensure_default
from tests.support.sync_store import SyncStore

NAMES = st.sampled_from(["a", "b", "env", "KEY"])
SECRET = {"format": "password"}
SCHEMAS = st.recursive(
    st.sampled_from([{}, SECRET, {"type": "string"}, {"anyOf": [SECRET, {"type": "null"}]}]),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"properties": st.dictionaries(NAMES, inner, max_size=3)}),
        st.fixed_dictionaries({"items": inner}),
        st.fixed_dictionaries({"additionalProperties": inner}),
    ),
    max_leaves=6,
)
LEAVES = st.one_of(
    st.none(), st.integers(10_000_000, 99_999_999), st.integers(10_000_000, 99_999_999).map(lambda n: f"text{n}")
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
DOTTED = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
VARIABLES = st.dictionaries(DOTTED, VALUES, max_size=4)


def _leaves(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {leaf for part in value.values() for leaf in _leaves(part)}
    if isinstance(value, list):
        return {leaf for part in value for leaf in _leaves(part)}
    return set() if value is None else {str(value)}


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, SCHEMAS, min_size=1, max_size=3), VARIABLES, VARIABLES)
def test_rows_show_nothing_secret_and_open_to_what_was_written(
    properties: dict[str, Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    template = {"job_configuration": {}, "variables": {"properties": properties}}
    store = SyncStore()
    store.write(lambda tx: ensure_default(tx, plan="pro"))

    def made(tx: Any) -> str:
        pool = rows.insert(tx, WORK_POOL, {"name": "p", "type": "x", "base_job_template": template})
        queue = rows.insert(tx, WORK_QUEUE, {"name": "q", "work_pool_id": pool, "priority": 1})
        flow = rows.insert(tx, FLOW, {"name": "f"})
        return rows.insert(
            tx, DEPLOYMENT, {"name": "d", "flow_id": flow, "work_queue_id": queue, "job_variables": first}
        )

    deployment = store.write(made)

    def check(written: dict[str, Any]) -> dict[str, Any]:
        def look(tx: Any) -> tuple[str, dict[str, Any]]:
            text = tx.scalar("SELECT job_variables FROM deployments")
            return text, concealing.text_in_clear(tx, "deployments", deployment, "job_variables", text)

        text, clear = store.read(look)
        assert clear == written
        # What was secret before may be masked as well; nothing else than what is open may show.
        open_part = masked(written, concrete(secret_paths(template), written))
        assert _leaves(orjson.loads(text)) <= _leaves(open_part) | {MASK}
        return dict(orjson.loads(text))

    shown = check(first)
    # Writing back what was read changes nothing.
    store.write(lambda tx: rows.patch(tx, DEPLOYMENT, deployment, {"job_variables": shown}))
    check(first)
    store.write(lambda tx: rows.patch(tx, DEPLOYMENT, deployment, {"job_variables": second}))
    check(second)
    assert len(store.read(sealed.counts)) <= 1
