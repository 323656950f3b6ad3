"""Filters and sorts against Prefect's own server models, on the same random rows."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from datetime import datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import filter_oracle
from tests.support.filter_store import FilteredStore
from tests.support.filter_world import make_query, make_world

if TYPE_CHECKING:
    from tests.support.provision import Provisioned

pytestmark = [pytest.mark.client, pytest.mark.timeout(300)]

PROGRAM = Path(__file__).with_name("peer_filters.py")
WORLDS, QUERIES_A_WORLD = 60, 40


def _meant_otherwise(case: dict[str, Any]) -> bool:
    """Under `or_`, Prefect takes the words of a log search apart into conditions of their own; here a search stays one."""
    logs = case["filters"].get("logs", {})
    return "text" in logs and logs.get("operator") == "or_"


def _iso(value: Any) -> str:
    assert isinstance(value, datetime)
    return value.isoformat()


def _ask_peer(prefect_venv: Provisioned, given: list[dict[str, Any]], home: Path) -> list[list[str]]:
    assert prefect_venv.prefect_python is not None
    done = subprocess.run(
        [prefect_venv.prefect_python, str(PROGRAM)],
        input=json.dumps(given, default=_iso),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env={
            "PREFECT_HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "DO_NOT_TRACK": "1",
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/peer.db",
        },
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answers: list[list[str]] = json.loads(done.stdout)
    return answers


def test_prefects_server_finds_the_same(prefect_venv: Provisioned, tmp_path: Path) -> None:
    random = Random(20260301)
    given = []
    for _ in range(WORLDS):
        world = make_world(random)
        cases = [{**make_query(random, world), "limit": 10_000, "offset": 0} for _ in range(QUERIES_A_WORLD)]
        given.append({"rows": world, "cases": [case for case in cases if not _meant_otherwise(case)]})
    theirs = iter(_ask_peer(prefect_venv, given, tmp_path))
    wrong = []
    with closing(FilteredStore()) as store:
        for world in given:
            store.empty()
            store.fill(world["rows"])
            for case in world["cases"]:
                ours, expected = store.ask(case)[0], next(theirs)
                by_id = {row["id"]: row for row in world["rows"][case["table"]]}
                # Prefect leaves ties in any order.
                order = [
                    [filter_oracle.sort_key(case["sort"], by_id[id_]) for id_ in found] for found in (ours, expected)
                ]
                if sorted(ours) != sorted(expected) or order[0] != order[1]:
                    wrong.append((case, ours, expected))
    assert next(theirs, None) is None
    assert not wrong, f"{len(wrong)}: {wrong[:5]}"
