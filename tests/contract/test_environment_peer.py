"""The environment of a run as the real client reads it: whatever a user's variables say, address and credentials stay ours."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from managedd.engine.run_env import RunFacts, environment
from managedd.ids import DEFAULT_WORKSPACE_ID

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.provision import Provisioned

pytestmark = pytest.mark.client

OURS = "http://172.18.0.1:4201/api"
KEY = "mgd_key_of_the_run"
OTHER_WORKSPACE = "01994c2e-7d3b-7abc-8def-0123456789ab"
ACCOUNT = "01994c2e-7d3b-7abc-8def-0123456789ac"

PEER = r"""
import json, os, sys
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings

def plain(secret):
    return secret and secret.get_secret_value()

settings = get_current_settings()
client = get_client()
print(json.dumps({
    "url": settings.api.url, "key": plain(settings.api.key), "auth_string": plain(settings.api.auth_string),
    "custom_headers": dict(settings.client.custom_headers), "cloud": settings.cloud.api_url,
    "authorization": client._client.headers["authorization"], "base_url": str(client._client.base_url),
}))
"""

SECTION = {"url": "http://evil/api", "auth_string": "evil", "key": "evil"}
PROFILE = """active = "evil"
[profiles.evil]
PREFECT_API_URL = "http://evil/api"
PREFECT_API_KEY = "evil"
PREFECT_API_AUTH_STRING = "evil"
PREFECT_CLOUD_API_URL = "http://evil/api"
PREFECT_CLIENT_CUSTOM_HEADERS = '{"Authorization": "Bearer evil"}'
"""
HEADERS = {"Authorization": "Bearer evil"}
TRICKS: dict[str, dict[str, str]] = {
    "nothing": {},
    "the variables themselves": {
        "PREFECT_API_URL": "http://evil/api", "PREFECT_API_KEY": "evil", "PREFECT_API_AUTH_STRING": "evil",
        "PREFECT_CLOUD_API_URL": "http://evil", "PREFECT_CLIENT_CUSTOM_HEADERS": json.dumps(HEADERS),
    },
    "lower case": {
        "prefect_api_url": "http://evil/api", "prefect_api_key": "evil", "prefect_api_auth_string": "evil",
        "prefect_cloud_api_url": "http://evil", "prefect_client_custom_headers": json.dumps(HEADERS),
    },
    "the section": {"PREFECT_API": json.dumps(SECTION)},
    "the section in another case": {"Prefect_Api": json.dumps(SECTION)},
    "nested": {"PREFECT_API__URL": "http://evil/api", "PREFECT__API__URL": "http://evil/api"},
    "the client's section": {"PREFECT_CLIENT": json.dumps({"custom_headers": HEADERS})},
    "the cloud's section": {"PREFECT_CLOUD": json.dumps({"api_url": "http://evil/api"})},
    "the cloud's section is ours": {"prefect_cloud": json.dumps({"api_url": OURS})},
    "a profile": {"PREFECT_PROFILES_PATH": "{folder}/profiles.toml", "PREFECT_PROFILE": "evil"},
    "a profile in lower case": {"prefect_profiles_path": "{folder}/profiles.toml", "prefect_profile": "evil"},
    "a home": {"PREFECT_HOME": "{folder}"},
    "test modes": {
        "PREFECT_TESTING": json.dumps({"test_mode": True, "unit_test_mode": True}), "PREFECT_TEST_MODE": "1",
        "PREFECT_UNIT_TEST_MODE": "1", "PREFECT_TESTING_UNIT_TEST_MODE": "1", "PREFECT_TESTING_TEST_MODE": "1",
    },
}  # fmt: skip


def facts(workspace_id: str) -> RunFacts:
    return RunFacts(
        account_id=ACCOUNT, workspace_id=workspace_id, flow_run_id="r", flow_run_name="run", flow_id="f", flow_name="flow",
        deployment_id=None, deployment_name=None, work_pool_name=None,
    )  # fmt: skip


@pytest.fixture
def read(prefect_venv: Provisioned, tmp_path: Path) -> Any:
    """What the client makes of an environment, in a folder that holds a profile of somebody else's."""
    (tmp_path / "profiles.toml").write_text(PROFILE)

    def ask(env: dict[str, str]) -> dict[str, Any]:
        done = subprocess.run(
            [str(prefect_venv.prefect_python), "-W", "ignore", "-c", PEER], env={"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", **env},
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return ask


def assert_ours(found: dict[str, Any], workspace_id: str) -> None:
    if workspace_id == DEFAULT_WORKSPACE_ID:
        assert (found["url"], found["auth_string"], found["key"]) == (OURS, KEY, None)
        assert found["base_url"].rstrip("/") == OURS
        assert found["authorization"].startswith("Basic ")
    else:
        assert found["url"] == f"{OURS}/accounts/{ACCOUNT}/workspaces/{workspace_id}"
        assert (found["cloud"], found["auth_string"], found["key"]) == (OURS, None, KEY)
        assert found["authorization"] == f"Bearer {KEY}"
    assert found["custom_headers"] == {}
    assert "evil" not in json.dumps(found)


def filled(trick: str, folder: Path) -> dict[str, str]:
    return {name: value.replace("{folder}", str(folder)) for name, value in TRICKS[trick].items()}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_users_variable_replaces_address_or_credentials(read: Any, tmp_path: Path, trick: str) -> None:
    env = environment(facts(DEFAULT_WORKSPACE_ID), OURS, KEY, operator={}, user=filled(trick, tmp_path))
    assert_ours(read(env), DEFAULT_WORKSPACE_ID)


@pytest.mark.parametrize("by", ["operator", "user"])
def test_all_at_once_in_another_workspace(read: Any, tmp_path: Path, by: str) -> None:
    given = {name: value for trick in TRICKS for name, value in filled(trick, tmp_path).items()}
    layers: dict[str, dict[str, str]] = {"operator": {}, "user": {}, by: given}
    assert_ours(read(environment(facts(OTHER_WORKSPACE), OURS, KEY, **layers)), OTHER_WORKSPACE)


def test_the_tricks_are_tricks(read: Any, tmp_path: Path) -> None:
    """Without the filter the client would follow them: the test above can fail."""
    ours = {"PREFECT_API_URL": OURS, "PREFECT_API_AUTH_STRING": KEY}
    for trick in ("the section", "the client's section", "the cloud's section", "a profile", "a home"):
        assert "evil" in json.dumps(read({**filled(trick, tmp_path), **ours})), trick


def test_a_projects_own_files_do_not_replace_the_address_or_the_credential(read: Any, tmp_path: Path) -> None:
    """Code may come with the settings of the laptop that it was written on."""
    (tmp_path / "prefect.toml").write_text('[api]\nurl = "http://evil/api"\nauth_string = "evil"\n')
    (tmp_path / "pyproject.toml").write_text('[tool.prefect.api]\nurl = "http://evil/api"\nauth_string = "evil"\n')
    (tmp_path / ".env").write_text("PREFECT_API_URL=http://evil/api\nPREFECT_API_AUTH_STRING=evil\n")
    found = read(environment(facts(DEFAULT_WORKSPACE_ID), OURS, KEY, operator={}, user={}))
    assert_ours(found, DEFAULT_WORKSPACE_ID)
