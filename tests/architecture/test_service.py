"""The systemd unit agrees with the code that runs under it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from managedd.cli.exits import CANNOT_LISTEN, FAILED, WRONG_USAGE
from managedd.config import Settings, load

UNIT = Path(__file__).parents[2] / "systemd" / "managedd.service"
NEWER = {"DelegateSubgroup": 254}
"""Keys that older systemds pass over, and the first version that knows them."""


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


def test_it_may_set_rules_and_nothing_else(settings: dict[str, list[str]]) -> None:
    assert settings["AmbientCapabilities"] == settings["CapabilityBoundingSet"] == ["CAP_NET_ADMIN"]
    # Over a socket of this family.
    assert "AF_NETLINK" in settings["RestrictAddressFamilies"][0].split()


def test_there_is_time_to_stop(settings: dict[str, list[str]]) -> None:
    assert float(settings["TimeoutStopSec"][0]) > Settings().server.stop_seconds + 20


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze")
    # On the machine that tests, nobody has installed it.
    copied = tmp_path / UNIT.name
    copied.write_text(UNIT.read_text().replace("/usr/local/bin/managedd", sys.executable))
    done = subprocess.run([analyze, "verify", copied], capture_output=True, text=True, check=False, timeout=60)
    said = [line for line in done.stderr.splitlines() if str(copied) in line or UNIT.name in line]
    version = subprocess.run([analyze, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    unknown = {name for name, since in NEWER.items() if int(re.match(r"\d+", version)[0]) < since}  # type: ignore[index]
    assert [line for line in said if not any(f"Unknown key '{name}'" in line for name in unknown)] == []
    assert done.returncode == 0, done.stderr
