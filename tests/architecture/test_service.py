"""The systemd unit agrees with the code that runs under it."""

from __future__ import annotations

from pathlib import Path

import pytest

from managedd.cli.exits import CANNOT_LISTEN, FAILED, WRONG_USAGE
from managedd.config import Settings, load

UNIT = Path(__file__).parents[2] / "systemd" / "managedd.service"


@pytest.fixture(scope="module")
def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_readiness_and_the_watchdog_are_ours_to_tell(settings: dict[str, list[str]]) -> None:
    assert settings["Type"] == ["notify"]
    assert settings["NotifyAccess"] == ["main"]
    assert settings["ExecStart"][0].endswith("/managedd serve")
    assert float(settings["WatchdogSec"][0]) > 0


def test_a_wrong_configuration_is_not_tried_again_and_a_failure_is(settings: dict[str, list[str]]) -> None:
    assert settings["Restart"] == ["on-failure"]
    assert settings["RestartPreventExitStatus"] == [str(WRONG_USAGE)]
    assert WRONG_USAGE not in {FAILED, CANNOT_LISTEN}


def test_its_variables_are_settings_and_point_into_its_own_directory(
    settings: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for assignment in settings["Environment"]:
        name, _, value = assignment.partition("=")
        monkeypatch.setenv(name, value.replace("%S", "/var/lib"))
    assert load(None, {}).store.data_dir == Path("/var/lib") / settings["StateDirectory"][0]


def test_no_run_gets_the_engines_group(settings: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings["SupplementaryGroups"] == ["docker"]
    for assignment in settings["Environment"]:
        name, _, value = assignment.partition("=")
        monkeypatch.setenv(name, value.replace("%S", "/var/lib"))
    assert load(None, {}).runs.driver == "docker"


def test_there_is_time_to_stop(settings: dict[str, list[str]]) -> None:
    assert float(settings["TimeoutStopSec"][0]) > Settings().server.stop_seconds + 20
