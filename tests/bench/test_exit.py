"""The bench's exit code."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from tests.bench import __main__ as bench
from tests.bench.figures import Report
from tests.bench.systems import Peer
from tests.support.provision import HANDED_DOWN, Provisioned

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_runs_that_could_not_be_measured_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = Provisioned(reasons=("container tests cannot run: there is no engine",))
    monkeypatch.setenv(HANDED_DOWN, json.dumps(asdict(without)))
    # A peer that nothing is measured of need not be installed.
    monkeypatch.setattr(bench, "ensure_prefect_venv", lambda *_: tmp_path)
    monkeypatch.setattr(Peer, "versions", lambda _: {})
    assert bench.main(["--only", "runs", "--out", str(tmp_path / "figures.json")]) == 1
    report = Report.read(tmp_path / "figures.json")
    assert report.facts["failed"]
    assert report.notes == ["runs are not measured: container tests cannot run: there is no engine"]
