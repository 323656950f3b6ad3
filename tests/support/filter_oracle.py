"""What Prefect's filters mean, over rows in memory: a second opinion that knows neither SQL nor the store."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from managedd.store.text_search import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.support.filter_world import Row, World

Verdict = bool | None
"""Three values, as in SQL: None is "unknown"."""


def _all(verdicts: Iterable[Verdict]) -> Verdict:
    found = list(verdicts)
    return False if False in found else None if None in found else True


def _any(verdicts: Iterable[Verdict]) -> Verdict:
    found = list(verdicts)
    return True if True in found else None if None in found else False


def _combined(parts: list[Verdict], given: dict[str, Any]) -> Verdict:
    if not parts:
        return True
    return _any(parts) if given.get("operator") == "or_" else _all(parts)


def like(value: str | None, pattern: str) -> Verdict:
    """SQL's LIKE: `%` is any text, `_` any character, ASCII letters without case."""
    if value is None:
        return None
    expression = "".join(".*" if c == "%" else "." if c == "_" else re.escape(c) for c in _lower(pattern))
    return re.fullmatch(expression, _lower(value), re.DOTALL) is not None


def _lower(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


_LEAVES: dict[str, Callable[[Any, Any], Verdict]] = {
    "any_": lambda value, wanted: False if not wanted else None if value is None else value in wanted,
    "not_any_": lambda value, unwanted: None if value is None else value not in unwanted,
    "is_null_": lambda value, wanted: (value is None) is wanted,
    "exists_": lambda value, wanted: (value is not None) is wanted,
    "like_": lambda value, part: like(value, f"%{part}%"),
    "startswith_": lambda value, parts: _any(like(value, f"{part}%") for part in parts),
    "eq_": lambda value, wanted: None if value is None else value is wanted,
    "ge_": lambda value, bound: None if value is None else value >= bound,
    "le_": lambda value, bound: None if value is None else value <= bound,
    "before_": lambda value, moment: None if value is None else value <= _time(moment),
    "after_": lambda value, moment: None if value is None else value >= _time(moment),
}
_TAG_LEAVES: dict[str, Callable[[list[str], Any], Verdict]] = {
    "any_": lambda tags, wanted: bool(set(tags) & set(wanted)),
    "all_": lambda tags, wanted: set(wanted) <= set(tags),
    "is_null_": lambda tags, wanted: (not tags) is wanted,
}
_EMPTY_IS_NOTHING = frozenset({"not_any_", "all_", "like_", "startswith_"})


def _asked(given: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (operator, value)
        for operator, value in given.items()
        if operator != "operator" and value is not None and (value or operator not in _EMPTY_IS_NOTHING)
    ]


def _leaf(value: Any, given: dict[str, Any]) -> Verdict:
    return _combined([_LEAVES[operator](value, operand) for operator, operand in _asked(given)], given)


def _tagged(tags: list[str], given: dict[str, Any]) -> Verdict:
    return _combined([_TAG_LEAVES[operator](tags, operand) for operator, operand in _asked(given)], given)


def _state(row: Row, given: dict[str, Any]) -> Verdict:
    columns = {"type": row["state_type"], "name": row["state_name"]}
    # Parts that ask for nothing are left out here, where elsewhere they hold for every row.
    parts = [_leaf(columns[part], given[part]) for part in columns if given.get(part) and _asked(given[part])]
    return _combined(parts, given)


def _started(row: Row, given: dict[str, Any]) -> Verdict:
    began = row["expected_start_time"] if row["start_time"] is None else row["start_time"]
    parts = [
        _LEAVES[operator](row["start_time"] if operator == "is_null_" else began, value)
        for operator, value in _asked(given)
    ]
    return _combined(parts, given)


def _created_by(row: Row, given: dict[str, Any]) -> Verdict:
    creator = row["created_by"] or {}
    parts: list[Verdict] = []
    if given.get("id_") is not None:
        parts.append(_LEAVES["any_"](creator.get("id"), given["id_"]))
    if given.get("type_") is not None:
        parts.append(_LEAVES["any_"](creator.get("type"), given["type_"]))
    if given.get("is_null_") is not None:
        parts.append((row["created_by"] is None) is given["is_null_"])
    return _combined(parts, given)


def _parent(row: Row, given: dict[str, Any], world: World) -> Verdict:
    if given.get("any_") is None:
        return True
    parents = [task for task in world["task_runs"] if task["id"] == row["parent_task_run_id"]]
    return any(task["flow_run_id"] in given["any_"] for task in parents)


def _of_flow_run(row: Row, given: dict[str, Any]) -> Verdict:
    wanted, is_null = given.get("any_"), given.get("is_null_", False)
    if is_null:
        return row["flow_run_id"] is None
    if wanted is not None:
        return row["flow_run_id"] in wanted
    return True if is_null is None else row["flow_run_id"] is not None


def _flow_deployment(row: Row, given: dict[str, Any], world: World) -> Verdict:
    if given.get("is_null_") is None:
        return True
    return given["is_null_"] is not any(other["flow_id"] == row["id"] for other in world["deployments"])


def _either_name(row: Row, given: dict[str, Any], world: World) -> Verdict:
    part = given.get("like_")
    if not part:
        return True
    flow = next(flow for flow in world["flows"] if flow["id"] == row["flow_id"])
    return _any([like(row["name"], f"%{part}%"), like(flow["name"], f"%{part}%")])


def _subflows(row: Row, given: dict[str, Any], world: World) -> Verdict:
    if given.get("exists_") is None:
        return True
    return given["exists_"] is any(run["parent_task_run_id"] == row["id"] for run in world["flow_runs"])


def _text(row: Row, given: dict[str, Any]) -> Verdict:
    text = _lower(f"{row['message']} {row['name']}")
    search = parse(given["query"])
    return (
        (not search.any_of or any(_lower(term) in text for term in search.any_of))
        and all(_lower(term) in text for term in search.all_of)
        and not any(_lower(term) in text for term in search.none_of)
    )


def _part(table: str, field: str, row: Row, given: dict[str, Any], world: World) -> Verdict:
    match table, field:
        case _, "tags":
            return _tagged(row["tags"], given)
        case "block_schemas", "block_capabilities":
            return _tagged(row["capabilities"], given)
        case _, "state":
            return _state(row, given)
        case "flow_runs", "start_time":
            return _started(row, given)
        case "flow_runs", "created_by":
            return _created_by(row, given)
        case "flow_runs", "parent_flow_run_id":
            return _parent(row, given, world)
        case "task_runs", "flow_run_id":
            return _of_flow_run(row, given)
        case "task_runs", "subflow_runs":
            return _subflows(row, given, world)
        case "flows", "deployment":
            return _flow_deployment(row, given, world)
        case "deployments", "flow_or_deployment_name":
            return _either_name(row, given, world)
        case "logs", "text":
            return _text(row, given)
        case _:
            return _leaf(row[field], given)


def admits(table: str, given: dict[str, Any], row: Row, world: World) -> bool:
    """Whether `row` passes the filter; unknown is no."""
    asked = {name: value for name, value in given.items() if name != "operator" and value is not None}
    if table == "block_documents" and "is_anonymous" not in given:
        asked["is_anonymous"] = {"eq_": False}
    parts = [_part(table, name, row, value, world) for name, value in asked.items()]
    return _combined(parts, given) is True


def _found(world: World, table: str, **match: Any) -> list[Row]:
    return [row for row in world[table] if all(row[name] == value for name, value in match.items())]


def _ways(table: str, row: Row, world: World) -> list[tuple[frozenset[str], list[dict[str, Row]]]]:
    """Groups of tables that are reached together, each with the combinations of rows that are reached from `row`."""

    def queued(queue_id: str | None) -> list[dict[str, Row]]:
        return [
            {"work_queues": queue, "work_pools": pool}
            for queue in _found(world, "work_queues", id=queue_id)
            for pool in _found(world, "work_pools", id=queue["work_pool_id"])
        ]

    def run_and_above(run_id: str | None) -> list[dict[str, Row]]:
        return [
            {"flow_runs": run, **{"flows": flow}, **deployed}
            for run in _found(world, "flow_runs", id=run_id)
            for flow in _found(world, "flows", id=run["flow_id"])
            for deployed in [{"deployments": d} for d in _found(world, "deployments", id=run["deployment_id"])] or [{}]
        ]

    def runs_and_tasks(**match: Any) -> list[dict[str, Row]]:
        return [
            {"flow_runs": run, **tasked}
            for run in _found(world, "flow_runs", **match)
            for tasked in [{"task_runs": task} for task in _found(world, "task_runs", flow_run_id=run["id"])] or [{}]
        ]

    def single(other: str, **match: Any) -> tuple[frozenset[str], list[dict[str, Row]]]:
        return frozenset({other}), [{other: found} for found in _found(world, other, **match)]

    match table:
        case "flows":
            deployed = [
                {"deployments": deployment, **queue}
                for deployment in _found(world, "deployments", flow_id=row["id"])
                for queue in queued(deployment["work_queue_id"]) or [{}]
            ]
            return [
                (frozenset({"deployments", "work_pools"}), deployed),
                (frozenset({"flow_runs", "task_runs"}), runs_and_tasks(flow_id=row["id"])),
            ]
        case "flow_runs":
            return [
                single("flows", id=row["flow_id"]),
                single("task_runs", flow_run_id=row["id"]),
                single("deployments", id=row["deployment_id"]),
                (frozenset({"work_queues", "work_pools"}), queued(row["work_queue_id"])),
            ]
        case "task_runs":
            return [(frozenset({"flows", "flow_runs", "deployments"}), run_and_above(row["flow_run_id"]))]
        case "deployments":
            return [
                single("flows", id=row["flow_id"]),
                (frozenset({"flow_runs", "task_runs"}), runs_and_tasks(deployment_id=row["id"])),
                (frozenset({"work_queues", "work_pools"}), queued(row["work_queue_id"])),
            ]
        case "artifacts" | "artifact_collections":
            return [
                (frozenset({"flows", "flow_runs", "deployments"}), run_and_above(row["flow_run_id"])),
                single("task_runs", id=row["task_run_id"]),
            ]
        case "block_documents":
            return [
                single("block_types", id=row["block_type_id"]),
                single("block_schemas", id=row["block_schema_id"]),
            ]
        case "block_types":
            return [single("block_schemas", block_type_id=row["id"])]
        case _:
            return []


def chosen(world: World, query: dict[str, Any]) -> list[Row]:
    """The rows of the query's table that all of its filters admit, in no order."""
    table = query["table"]
    filters = query["filters"]
    found = []
    for row in world[table]:
        if table in filters and not admits(table, filters[table], row, world):
            continue
        if all(_reached(names, combinations, filters, world) for names, combinations in _ways(table, row, world)):
            found.append(row)
    return found


def _reached(names: frozenset[str], combinations: list[dict[str, Row]], filters: dict[str, Any], world: World) -> bool:
    asked = names & set(filters)
    return not asked or any(
        all(name in combination and admits(name, filters[name], combination[name], world) for name in asked)
        for combination in combinations
    )


def sort_key(sort: str, row: Row) -> tuple[Any, ...]:
    """What the order goes by, without the tie-break; comparable within one sort, in ascending order."""
    if sort == "BLOCK_TYPE_AND_NAME_ASC":
        return _comparable(row["block_type_name"]) + _comparable(row["name"])
    column = sort.rpartition("_")[0].lower()
    value = row[column]
    if column == "start_time" and value is None and "expected_start_time" in row:
        value = row["expected_start_time"]
    return _comparable(value)


def _comparable(value: Any) -> tuple[Any, ...]:
    # SQLite puts what is null before everything, and texts in the order of their bytes.
    if value is None:
        return (0, b"")
    return (1, value.encode() if isinstance(value, str) else value)


def page(world: World, query: dict[str, Any]) -> list[str]:
    """The ids of the page that the query asks for; ties are in the order in which rows were made."""
    sort = query["sort"]
    rows = chosen(world, query)
    if sort.endswith("_DESC"):
        rows.reverse()
    rows.sort(key=lambda row: sort_key(sort, row), reverse=sort.endswith("_DESC"))
    return [row["id"] for row in rows[query["offset"] :][: query["limit"]]]
