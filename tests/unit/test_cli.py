"""The command line as a user meets it: real processes, what they print and where, and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from managedd import __version__
from managedd.cli.app import run
from managedd.cli.exits import Unreachable, exit_code
from managedd.cli.output import duration, harmless, size, slots
from managedd.errors import CannotListen, ErrorCode, ManagedError

if TYPE_CHECKING:
    from pathlib import Path


def managedd(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A finished `python -m managedd` in an environment without our variables."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("MANAGEDD_")}
    environment |= {"PYTHONWARNINGS": "error", "COLUMNS": "80", **variables}
    return subprocess.run(
        [sys.executable, "-m", "managedd", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def told(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line that a failed command says."""
    assert done.returncode == code, done
    assert done.stdout == ""
    assert done.stderr.startswith("managedd: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_version() -> None:
    done = managedd("--version")
    assert (done.returncode, done.stdout) == (0, f"managedd {__version__}\n")


def test_help_names_every_command_and_the_exit_codes() -> None:
    done = managedd("--help")
    assert done.returncode == 0
    shown = " ".join(done.stdout.split())
    assert all(
        name in shown
        for name in ("serve", "status", "logs", "openapi", "check-config", "doctor", "3 no daemon", "4 can't listen")
    )
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("command", ["serve", "status", "logs", "openapi", "check-config", "doctor"])
def test_every_command_takes_config_and_data_dir(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--config" in shown
    assert "--data-dir" in shown
    if command in {"status", "logs", "check-config", "doctor"}:
        assert "--json" in shown


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["sevre"], 'Did you mean "serve"?'),
        (["serve", "--prot", "1"], "Did you mean --port?"),
        (["serve", "--port", "many"], "--port"),
        (["serve", "--driver", "podman"], "podman"),
        (["logs"], "RUN"),
        (["logs", "x", "-n", "-1"], "--lines"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert part in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("command", ["serve", "status", "openapi", "check-config", "doctor"])
def test_a_wrong_configuration_is_exit_code_2(command: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[server]\nprot = 1\n")
    assert "server.prot" in told(managedd(command, "--config", str(path)), 2)


def test_a_missing_file_and_an_unknown_variable_are_exit_code_2(tmp_path: Path) -> None:
    assert "missing.toml" in told(managedd("serve", "--config", str(tmp_path / "missing.toml")), 2)
    assert "MANAGEDD_PORT" in told(managedd("serve", MANAGEDD_PORT="1"), 2)


def test_serve_does_not_open_to_the_world_without_a_credential(tmp_path: Path) -> None:
    done = managedd("serve", "--host", "0.0.0.0", "--data-dir", str(tmp_path))
    assert "server.auth_string" in told(done, 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["logs", "x"], ["logs", "x", "-f"]])
def test_without_a_daemon_the_exit_code_is_3_and_how_to_start_one_is_said(arguments: list[str], tmp_path: Path) -> None:
    line = told(managedd(*arguments, "--data-dir", str(tmp_path)), 3)
    assert "managedd serve" in line
    assert str(tmp_path) in line


def test_a_socket_that_nobody_serves_any_more_is_no_daemon(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "managedd.sock"))
    assert "managedd serve" in told(managedd("status", "--data-dir", str(tmp_path)), 3)


def test_check_config_shows_what_is_in_force_and_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[server]\nport = 1001\nauth_string = 'me:hunter2'\n[runs.env]\nTOKEN = 'hunter2'\n")
    done = managedd("check-config", "--config", str(path), MANAGEDD_LOG__LEVEL="debug")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"# file: {path}"
    assert f"server.port = 1001  # {path}" in lines
    assert 'log.level = "debug"  # MANAGEDD_LOG__LEVEL' in lines
    assert 'docker.host = "none"  # default' in lines
    assert f'server.auth_string = "**********"  # {path}' in lines
    assert f'runs.env.TOKEN = "**********"  # {path}' in lines
    assert "hunter2" not in done.stdout


def test_check_config_as_json(tmp_path: Path) -> None:
    done = managedd(
        "check-config", "--json", "--data-dir", str(tmp_path), MANAGEDD_RUNS__INDEX_URL="https://u:hunter2@i/"
    )
    shown = json.loads(done.stdout)
    assert shown["file"] is None
    assert shown["settings"]["store"]["data_dir"] == str(tmp_path)
    assert shown["origins"] == {"store.data_dir": "flag", "runs.index_url": "MANAGEDD_RUNS__INDEX_URL"}
    assert "hunter2" not in done.stdout


def test_check_config_names_the_plans_that_do_not_allow_the_usual_image(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[runs]\nimage = 'ghcr.io/team/app:1'\n[plans.pro]\nimages = ['ghcr.io/team/*']\n")
    done = managedd("check-config", "--config", str(path))
    assert done.returncode == 0
    assert "# note: runs.image = 'ghcr.io/team/app:1' is no image that these plans allow: free." in done.stdout
    assert json.loads(managedd("check-config", "--json", "--config", str(path)).stdout)["notes"]
    assert json.loads(managedd("check-config", "--json").stdout)["notes"] == []
    assert "# note" not in managedd("check-config").stdout


def test_check_config_shows_no_user_of_an_address(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        "[docker]\nhost = 'tcp://me:hunter2@engine:2376'\n"
        "[runs]\nno_proxy = 'a.example,http://me:hunter2@b.example,http://me:hun@ter2@c'\napi_url = 'http://daemon:4201/api'\n"
    )
    for arguments in ([], ["--json"]):
        done = managedd("check-config", "--config", str(path), *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "tcp://**********@engine:2376" in done.stdout
        assert "a.example,http://**********@c" in done.stdout
        assert '"http://daemon:4201/api"' in done.stdout
        assert "hunter2" not in done.stdout
        assert "ter2" not in done.stdout


def test_check_config_looks_at_the_certificates_and_status_does_not(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("not one")
    for command in ("check-config", "serve"):
        done = managedd(command, "--data-dir", str(tmp_path / "data"), MANAGEDD_RUNS__CA_BUNDLE=str(bundle))
        assert f"runs.ca_bundle: {bundle} holds no certificate" in told(done, 2)
    done = managedd("status", "--data-dir", str(tmp_path / "data"), MANAGEDD_RUNS__CA_BUNDLE=str(bundle))
    assert "managedd serve" in told(done, 3)


def test_openapi_prints_the_document_without_a_daemon() -> None:
    done = managedd("openapi")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert "/managed/status" in document["paths"]


def test_a_reader_that_has_had_enough_is_no_failure() -> None:
    command = f"{sys.executable} -m managedd openapi | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


def test_a_failure_inside_a_task_group_is_told_like_any_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from managedd import daemon

    async def serve(*_: object) -> None:
        raise ExceptionGroup("", [ExceptionGroup("", [ManagedError(ErrorCode.CONFIG, "port 1 is taken")])])

    monkeypatch.setattr(daemon, "serve", serve)
    assert run(["serve", "--data-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "managedd: port 1 is taken\n"


def test_a_fault_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from managedd import daemon

    async def serve(*_: object) -> None:
        raise ExceptionGroup("", [ManagedError(ErrorCode.CONFIG, "known"), ZeroDivisionError()])

    monkeypatch.setattr(daemon, "serve", serve)
    with pytest.raises(ExceptionGroup):
        run(["serve", "--data-dir", str(tmp_path)])


def test_exit_codes() -> None:
    assert exit_code(ManagedError(ErrorCode.CONFIG, "")) == 2
    assert exit_code(Unreachable("")) == 3
    assert exit_code(CannotListen("")) == 4
    assert exit_code(ManagedError(ErrorCode.NOT_FOUND, "")) == 1


def test_numbers_for_people() -> None:
    assert [size(n) for n in (None, 0, 1023, 1024, 2 * 1024**3, 300 * 1024**2, 5 * 1024**4)] == [
        "-", "0 B", "1023 B", "1.0 KiB", "2.0 GiB", "300 MiB", "5.0 TiB",
    ]  # fmt: skip
    assert [duration(s) for s in (-1, 59.9, 60, 3_661, 90_000)] == ["0 s", "59 s", "1 min 0 s", "1 h 1 min", "1 d 1 h"]
    assert [slots(2, 10), slots(2, None)] == ["2 of 10", "2"]


def test_what_a_run_prints_can_not_command_the_terminal() -> None:
    assert harmless("a\x1b[2Jb\x9bc\td\ne\r") == "a\ufffd[2Jb\ufffdc\td\ne\ufffd"
