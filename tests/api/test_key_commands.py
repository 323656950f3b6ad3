"""`workspace` and `key` as processes: against a daemon's socket, on a closed store, and before there is any store."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from managedd.cli.app import run
from managedd.model import keys as made_keys
from managedd.store.lock import DataDirLock
from tests.api.test_cli import door, managedd, printed

if TYPE_CHECKING:
    from pathlib import Path

    from managedd.api.context import Services
    from managedd.listeners import Door

__all__ = ["door"]

pytestmark = pytest.mark.anyio


class Closed:
    """Commands over a data directory that no daemon serves."""

    def __init__(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data_dir = data_dir
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """What it printed on standard output and standard error."""
        assert run([*arguments, "--data-dir", str(self.data_dir)]) == code, self._capsys.readouterr()
        return tuple(self._capsys.readouterr())

    def asked(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json")[0])


@pytest.fixture
def closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Closed:
    return Closed(tmp_path / "data", capsys)


def as_process(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MANAGEDD_")}
    command = [sys.executable, "-m", "managedd", *arguments, "--data-dir", str(data_dir)]
    environment = {**kept, "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    return done


CREATE = ("key", "create", "--workspace", "default/default", "--role", "admin")


def test_before_the_first_start_a_key_can_be_made_and_stands_alone_on_standard_output(closed: Closed) -> None:
    data_dir = closed.data_dir
    done = as_process(data_dir, *CREATE, "--name", "me")
    key = done.stdout.removesuffix("\n")
    assert made_keys.is_key(key)
    assert key not in done.stderr
    assert "prefect cloud login --key <the key> --workspace default/default" in done.stderr
    assert "PREFECT_CLOUD_API_URL=http://127.0.0.1:4200/api" in done.stderr
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in data_dir.iterdir()} == {0o600}
    (listed,) = closed.asked("key", "list")
    assert (listed["workspace"], listed["name"], listed["role"]) == ("default/default", "me", "admin")
    assert key not in json.dumps(listed)


@pytest.mark.skipif(os.geteuid() != 0, reason="what is whose only root can change")
def test_what_root_makes_for_another_user_is_that_users_and_what_is_linked_there_is_not(
    closed: Closed, tmp_path: Path
) -> None:
    user, roots = 65_534, tmp_path / "roots"
    roots.write_text("root's own")
    closed.data_dir.mkdir()
    os.chown(closed.data_dir, user, user)
    (closed.data_dir / "hard").hardlink_to(roots)
    (closed.data_dir / "soft").symlink_to(roots)
    closed(*CREATE, "--name", "me")
    made = {each.name: each.lstat().st_uid for each in closed.data_dir.iterdir()}
    assert (made.pop("hard"), made.pop("soft")) == (0, 0)
    assert "state.db" in made and set(made.values()) == {user}


def test_on_a_closed_store_workspaces_and_keys_are_made_changed_and_ended(closed: Closed) -> None:
    made = closed.asked("workspace", "create", "acme/prod", "--plan", "free", "--name", "Production")
    assert (made["account"], made["handle"], made["plan"], made["name"]) == ("acme", "prod", "free", "Production")
    key = closed.asked(
        "key", "create", "--workspace", "acme/prod", "--name", "ci", "--role", "runner", "--expires", "90d"
    )
    assert key["api_url"] == made["api_url"]
    assert key["expires"] is not None
    assert closed.asked("workspace", "rename", "acme/prod", "live")["handle"] == "live"
    assert closed.asked("workspace", "plan", "acme/live", "pro")["plan"] == "pro"
    assert [each["keys"] for each in closed.asked("workspace", "list")] == [1, 0]
    closed("key", "revoke", "--workspace", "acme/live", "ci")
    (revoked,) = closed.asked("key", "list", "--workspace", "acme/live")
    assert revoked["revoked"] is not None
    assert "revoked" in closed("key", "list")[0]


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("workspace", "create", "acme"), 2, "write ACCOUNT/WORKSPACE"),
        (("workspace", "create", "Acme/x"), 1, "account"),
        (("workspace", "create", "default/default"), 1, "There is a workspace default/default already"),
        (("workspace", "create", "acme/x", "--plan", "huge"), 1, "plans: free, pro, unlimited"),
        (("workspace", "rename", "default/default"), 2, "--name"),
        (("workspace", "plan", "a/b", "free"), 1, "workspaces: default/default"),
        ((*CREATE, "--name", "me", "--expires", "2020-01-01"), 1, "has passed"),
        (("key", "revoke", "--workspace", "default/default", "none"), 1, "Key 'none' not found"),
        (("key", "create", "--workspace", "default/default", "--name", "x", "--role", "owner"), 2, "owner"),
    ],
)
def test_what_is_refused_is_said_in_one_line(closed: Closed, arguments: tuple[str, ...], code: int, part: str) -> None:
    printed, said = closed(*arguments, code=code)
    assert printed == ""
    assert said.startswith("managedd: ")
    assert part in said
    assert said.count("\n") == 1


def test_a_store_that_a_daemon_has_and_does_not_answer_for_stays_closed(closed: Closed) -> None:
    closed.data_dir.mkdir()
    with DataDirLock(closed.data_dir):
        _, said = closed(*CREATE, "--name", "me", code=3)
    assert "no daemon answers" in said
    assert not (closed.data_dir / "state.db").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
def test_what_root_makes_in_the_directory_of_another_user_is_that_users(closed: Closed) -> None:
    closed.data_dir.mkdir()
    os.chown(closed.data_dir, 12345, 12345)
    closed(*CREATE, "--name", "me")
    made = [each.stat() for each in closed.data_dir.iterdir()]
    assert {(each.st_uid, each.st_gid) for each in made} == {(12345, 12345)}
    assert len(made) >= 2


def test_deleting_asks_for_consent_and_what_was_deleted_is_not_there_any_more(closed: Closed) -> None:
    made = closed.asked("workspace", "create", "acme/prod")
    assert "--yes" in closed("workspace", "delete", "acme/prod", code=2)[1]
    assert len(closed.asked("workspace", "list")) == 2
    assert closed.asked("workspace", "delete", "acme/prod", "--yes") == {"deleted": "acme/prod", "id": made["id"]}
    assert [each["handle"] for each in closed.asked("workspace", "list")] == ["default"]
    assert "can't be deleted" in closed("workspace", "delete", "default/default", "--yes", code=1)[1]


def test_on_a_terminal_its_name_is_the_consent(closed: Closed, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    closed("workspace", "create", "acme/prod")
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    assert "nothing was deleted" in closed("workspace", "delete", "acme/prod", code=2)[1]
    monkeypatch.setattr(sys, "stdin", Terminal("acme/prod\n"))
    assert "acme/prod is deleted" in closed("workspace", "delete", "acme/prod")[0]


def test_the_audit_log_tells_what_was_done_without_a_daemon_too(closed: Closed) -> None:
    closed("workspace", "create", "acme/prod")
    closed("key", "create", "--workspace", "acme/prod", "--name", "laptop", "--role", "viewer")
    closed("key", "revoke", "--workspace", "acme/prod", "laptop")
    revoked, made, workspace = closed.asked("audit")
    assert [each["operation"] for each in (revoked, made, workspace)] == [
        "DELETE /managed/keys/{id_or_name}",
        "POST /managed/keys",
        "POST /managed/workspaces",
    ]
    assert {(each["actor"], each["address"]) for each in (revoked, made, workspace)} == {("operator", None)}
    assert len(closed.asked("audit", "--workspace", "acme/prod")) == 2
    assert closed.asked("audit", "--lines", "1") == [revoked]
    assert closed.asked("audit", "--actor", "key") == []
    assert len(closed.asked("audit", "--since", "1h", "--lines", "0")) == 3
    shown = closed("audit")[0]
    assert "key=laptop" in shown
    assert "acme/prod" in shown
    assert "--lines" in closed("audit", "--lines", "-1", code=2)[1]


async def test_a_daemon_is_asked_over_its_socket(door: Door, services: Services) -> None:
    with DataDirLock(services.settings.store.data_dir):
        made = json.loads(await printed(services, "workspace", "create", "acme/prod", "--json"))
        done = await managedd(services, "key", "create", "--workspace", "acme/prod", "--name", "k", "--role", "viewer")
        assert done.returncode == 0
        assert made_keys.is_key(done.stdout.decode().strip())
        assert made["id"] in done.stderr.decode()
        assert "acme/prod" in await printed(services, "key", "list")
        assert "revoked" not in await printed(services, "key", "list")
        await printed(services, "key", "revoke", "--workspace", "acme/prod", "k")
        assert "revoked" in await printed(services, "key", "list")
