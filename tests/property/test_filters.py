"""Filters, sorts and pages: what the store answers is what an interpretation in memory says, over random rows and random filters."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from managedd import ids
from managedd.wire.filters.flow_runs import FlowRunFilter
from tests.support import filter_oracle
from tests.support.filter_store import TABLES, filtered_store
from tests.support.filter_world import FILTERS, TIMES, make_query, make_world
from tests.support.sync_store import OTHER_WORKSPACE

if TYPE_CHECKING:
    from tests.support.filter_store import FilteredStore

store = pytest.fixture(scope="module", name="store")(filtered_store)
SEEDS = st.integers(0, 2**40)
QUERIES_A_WORLD = 12


@pytest.mark.parametrize("table", FILTERS)
@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_what_is_found_and_counted_is_what_the_filters_mean(store: FilteredStore, table: str, seed: int) -> None:
    random = Random(seed)
    world, elsewhere = make_world(random), make_world(random)
    for row in elsewhere["artifacts"]:
        # Clients may name any run in an artifact; one of another workspace must not be seen through it.
        row["flow_run_id"] = random.choice([run["id"] for run in world["flow_runs"]] or [None])
    store.empty()
    store.fill(world)
    store.fill(elsewhere, OTHER_WORKSPACE)
    for _ in range(QUERIES_A_WORLD):
        query = make_query(random, world, (table,))
        expected = filter_oracle.page(world, query)
        found, total = store.ask(query)
        assert found == expected, query
        assert total == len(filter_oracle.chosen(world, query)), query


def test_a_run_of_another_workspace_is_not_seen_through_an_artifact(store: FilteredStore) -> None:
    random = Random(1)
    mine, theirs = _with_runs(random), _with_runs(random)
    artifact = {
        "id": ids.new_id(),
        "created": TIMES[0],
        "updated": TIMES[0],
        "key": None,
        "type": None,
        "task_run_id": None,
    }
    mine["artifacts"] = [{**artifact, "flow_run_id": theirs["flow_runs"][0]["id"]}]
    store.empty()
    store.fill(mine)
    store.fill({**theirs, "artifacts": []}, OTHER_WORKSPACE)
    asked = {"table": "artifacts", "filters": {"flow_runs": {}}, "sort": "ID_DESC", "limit": 9, "offset": 0}
    assert store.ask(asked) == ([], 0)


def _with_runs(random: Random) -> Any:
    while True:
        world = make_world(random)
        if world["flow_runs"]:
            return {**world, "artifacts": [], "artifact_collections": []}


class TestPrefectsQuirks:
    """Each by name, over two flow runs: `alpha` with the tag `red`, `b_ta` with none."""

    @pytest.fixture(autouse=True)
    def _two_runs(self, store: FilteredStore) -> None:
        world = _with_runs(Random(2))
        plain = {**world["flow_runs"][0], "parent_task_run_id": None, "idempotency_key": None}
        runs = [
            {**plain, "id": ids.new_id(), "name": "alpha", "tags": ["red"], "deployment_id": None},
            {**plain, "id": ids.new_id(), "name": "b_ta", "tags": [], "deployment_id": None},
        ]
        store.empty()
        store.fill({**world, "flow_runs": runs, "task_runs": [], "logs": []})
        self.names = {run["id"]: run["name"] for run in runs}
        self.store = store

    def found(self, **filters: Any) -> set[str]:
        query = {"table": "flow_runs", "filters": filters, "sort": "ID_DESC", "limit": 9, "offset": 0}
        return {self.names[id_] for id_ in self.store.ask(query)[0]}

    def test_an_empty_list_to_take_from_takes_nothing(self) -> None:
        assert self.found(flow_runs={"name": {"any_": []}}) == set()
        assert self.found(flow_runs={"tags": {"any_": []}}) == set()

    def test_an_empty_list_to_leave_out_and_empty_tags_to_demand_are_no_filter(self) -> None:
        assert self.found(flow_runs={"id": {"not_any_": []}}) == {"alpha", "b_ta"}
        assert self.found(flow_runs={"tags": {"all_": []}}) == {"alpha", "b_ta"}

    def test_like_knows_wildcards_and_an_empty_one_is_no_filter(self) -> None:
        assert self.found(flow_runs={"name": {"like_": ""}}) == {"alpha", "b_ta"}
        assert self.found(flow_runs={"name": {"like_": "b_t"}}) == {"b_ta"}
        assert self.found(flow_runs={"name": {"like_": "l_h"}}) == {"alpha"}
        assert self.found(flow_runs={"name": {"like_": "A%A"}}) == {"alpha"}

    def test_a_part_that_asks_for_nothing_makes_an_or_true(self) -> None:
        only = {"name": {"any_": ["alpha"]}, "operator": "or_"}
        assert self.found(flow_runs=only) == {"alpha"}
        assert self.found(flow_runs={**only, "tags": {}}) == {"alpha", "b_ta"}

    def test_a_filter_on_another_resource_demands_that_there_is_one(self) -> None:
        assert self.found(deployments={}) == set()
        assert self.found(flows={}) == {"alpha", "b_ta"}

    def test_tags_are_null_when_there_are_none(self) -> None:
        assert self.found(flow_runs={"tags": {"is_null_": True}}) == {"b_ta"}
        assert self.found(flow_runs={"tags": {"is_null_": False}}) == {"alpha"}

    def test_what_is_unknown_is_in_no_list_and_in_no_complement(self) -> None:
        assert self.found(flow_runs={"idempotency_key": {"not_any_": ["other"]}}) == set()


def test_every_filter_model_has_a_table_whose_columns_it_names() -> None:
    for name, model in FILTERS.items():
        for field in model.model_fields:
            assert field == "operator" or field in TABLES[name].filters or TABLES[name].has(field), (name, field)
    assert "created_by" in FlowRunFilter.model_fields
