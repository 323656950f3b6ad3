"""Settings: which source wins, and that nothing wrong is taken silently."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from managedd.config import Settings, load, load_with_origins, loading, read_ca_bundle
from managedd.errors import ErrorCode, ManagedError
from managedd.model import addresses

if TYPE_CHECKING:
    from collections.abc import Callable

Write = "Callable[[str], Path]"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.upper().startswith("MANAGEDD_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(loading, "DEFAULT_FILE", tmp_path / "no" / "such.toml")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def written(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return written


def refused(path: Path | None = None, **overrides: Any) -> str:
    with pytest.raises(ManagedError) as caught:
        load(path, overrides)
    assert caught.value.code is ErrorCode.CONFIG
    assert "\n" not in caught.value.message
    return caught.value.message


def test_without_any_source_the_defaults_hold() -> None:
    assert load(None, {}) == Settings()


def test_each_source_wins_over_the_one_before(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("[server]\nport = 1001\nhost = '127.0.0.2'\nstop_seconds = 5\n")
    monkeypatch.setenv("MANAGEDD_SERVER__PORT", "1002")
    monkeypatch.setenv("MANAGEDD_SERVER__HOST", "127.0.0.3")
    found = load_with_origins(path, {"server.port": 1003, "server.max_body_bytes": None})
    server = found.settings.server
    assert (server.port, server.host, server.stop_seconds) == (1003, "127.0.0.3", 5)
    assert found.origins == {
        "server.port": "flag",
        "server.host": "MANAGEDD_SERVER__HOST",
        "server.stop_seconds": str(path),
    }
    assert found.file == path


def test_lists_and_tables_come_as_json_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANAGEDD_DOCKER__DNS", '["192.0.2.1"]')
    monkeypatch.setenv("MANAGEDD_RUNS__ENV", '{"Mixed_Case": "x"}')
    monkeypatch.setenv("MANAGEDD_PLANS__TEAM__CONCURRENT_RUNS", "7")
    monkeypatch.setenv("MANAGEDD_DEFAULT_PLAN", "team")
    settings = load(None, {})
    assert settings.docker.dns == ["192.0.2.1"]
    assert settings.runs.env == {"Mixed_Case": "x"}
    assert settings.plans[settings.default_plan].concurrent_runs == 7


def test_a_list_that_is_no_json_is_refused_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANAGEDD_RUNS__ENV", "TOKEN=hunter2")
    told = refused()
    assert "MANAGEDD_RUNS__ENV" in told
    assert "hunter2" not in told


def test_plans_are_added_to_the_built_in_ones(write: Callable[[str], Path]) -> None:
    settings = load(write("[plans.team]\nconcurrent_runs = 3\n[plans.free]\n"), {})
    assert {name: plan.concurrent_runs for name, plan in settings.plans.items()} == {
        "team": 3, "free": 1, "pro": 10, "unlimited": None,
    }  # fmt: skip


def test_the_word_none_clears_a_key_that_may_be_empty(write: Callable[[str], Path]) -> None:
    path = write("[retention]\nruns_days = 'none'\n[plans.pro]\nconcurrent_runs = 'none'\n")
    settings = load(path, {})
    assert settings.retention.runs_days is None
    assert settings.plans["pro"].concurrent_runs is None
    assert "events_days" in refused(write("[retention]\nevents_days = 'none'\n"))


def test_a_file_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing.toml"
    assert str(missing) in refused(missing)
    monkeypatch.setenv("MANAGEDD_CONFIG", str(missing))
    assert str(missing) in refused()
    assert str(tmp_path) in refused(tmp_path)


def test_the_usual_file_is_read_when_it_is_there(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("[server]\nport = 1001\n")
    monkeypatch.setattr(loading, "DEFAULT_FILE", path)
    assert load(None, {}).server.port == 1001


def test_the_variable_names_the_file_and_the_flag_another(
    write: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANAGEDD_CONFIG", str(write("[server]\nport = 1001\n")))
    assert load(None, {}).server.port == 1001
    other = tmp_path / "other.toml"
    other.write_text("[server]\nport = 1002\n")
    assert load(other, {}).server.port == 1002


def test_a_file_that_is_no_toml_is_refused(write: Callable[[str], Path]) -> None:
    told = refused(write("[server\nport = 1\n"))
    assert "no TOML" in told
    assert "line 1" in told


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[server]\nprot = 1\n", ["server.prot", "unknown key", "did you mean port?", "max_body_bytes"]),
        ("[sever]\nport = 1\n", ["sever", "unknown key", "did you mean server?", "retention"]),
        ("[plans.pro]\nruns = 1\n", ["plans.pro.runs", "unknown key", "concurrent_runs"]),
        ("[server]\nport = 70000\n", ["server.port", "65535"]),
        ("[server]\nport = 'many'\n", ["server.port", "integer"]),
        ("[runs]\ndriver = 'podman'\n", ["runs.driver", "'auto'", "'docker'", "'process'"]),
        (
            "[server]\nhost = '0.0.0.0'\nauth_string = 'a:b'\n[runs]\ndriver = 'process'\n",
            ["runs.driver", "not isolated", "process.trusted = true"],
        ),
        ("[docker]\nlog_max_size = '50'\n", ["docker.log_max_size", "pattern"]),
        ("server = 1\n", ["server"]),
        ("default_plan = 'gold'\n", ["default_plan", "gold", "free, pro, unlimited"]),
        ("[server]\nport = 0\nprot = 1\n[runs]\nstop_grace_seconds = 0\n", ["server.prot", "runs.stop_grace_seconds"]),
    ],
)
def test_what_is_wrong_in_the_file_is_named(text: str, parts: list[str], write: Callable[[str], Path]) -> None:
    path = write(text)
    told = refused(path)
    assert all(part in told for part in parts), told
    if "default_plan" not in parts and "process.trusted = true" not in parts:
        assert str(path) in told


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("runs.api_url", "managedd.example:4201/api", "http:// or https://"),
        ("runs.api_url", "ftp://managedd.example/api", "http:// or https://"),
        ("runs.api_url", "http://managedd.example:4201", "must end with /api"),
        ("runs.api_url", "http://managedd.example/api?x=1", "must end with /api"),
        ("runs.api_url", "http:///api", "must name a host"),
        ("runs.api_url", "http://managedd.example:99999/api", "is no URL"),
        ("runs.api_url", "http://me:hunter2@managedd.example/api", "user or password"),
        ("runs.image", "Upper/Case", "name in lower case"),
        ("runs.image", "", "registry[:port]"),
        ("runs.index_url", "index.example/simple", "http:// or https://"),
        ("runs.index_url", "file:///hunter2", "http:// or https://"),
        ("runs.extra_index_url", "https://u:hunter2@/simple", "must name a host"),
        ("runs.extra_index_url", "https://one/hunter2 https://two/", "blanks"),
        ("runs.http_proxy", "hunter2.example:3128", "http://"),
        ("runs.https_proxy", "ftp://u:hunter2@proxy", "http://"),
        ("docker.host", "/var/run/docker.sock", "unix:///path"),
        ("docker.host", "ssh://hunter2@host", "forward its socket"),
        ("docker.host", "unix://run/docker.sock", "unix:///var/run/docker.sock"),
        ("docker.host", "tcp://", "must name a host"),
        ("docker.dns", ["192.0.2.1", "dns.example"], "must be an IP address"),
        ("runs.listen_host", "managedd.example", "must be an IP address"),
        ("runs.listen_host", "127.0.0.1:4201", "must be an IP address"),
        ("runs.env", {"1X": "hunter2"}, "'1X' is no name of a variable"),
        ("runs.env", {"": "hunter2"}, "no name of a variable"),
        ("runs.env", {"PREFECT_API_KEY": "hunter2"}, "PREFECT_API_KEY is the run's own"),
        ("runs.env", {"managedd_x": "hunter2"}, "managedd_x is the run's own"),
        ("runs.env", {"X": "hunter2\0"}, "null character"),
        ("docker.log_max_size", "0m", "pattern"),
        ("host.memory_bytes", 10**20, "less than or equal"),
        ("runs.memory_limit_bytes", 10**20, "less than or equal"),
        ("plans", {"free": {"concurrent_runs": 10**20}}, "less than or equal"),
    ],
)
def test_a_value_that_can_not_work_is_named_with_what_can(key: str, value: Any, allowed: str) -> None:
    told = refused(**{key: value})
    assert told.startswith(key)
    assert allowed in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("runs.api_url", "https://managedd.example/prefect/api/", "https://managedd.example/prefect/api"),
        ("runs.api_url", "http://[2001:db8::1]:4201/api", "http://[2001:db8::1]:4201/api"),
        ("runs.image", "ghcr.io/a/b:1@sha256:" + "0" * 64, "ghcr.io/a/b:1@sha256:" + "0" * 64),
        ("docker.host", "unix:///run/podman/podman.sock", "unix:///run/podman/podman.sock"),
        ("docker.host", "tcp://engine.example:2376", "tcp://engine.example:2376"),
        ("docker.host", "npipe:////./pipe/docker_engine", "npipe:////./pipe/docker_engine"),
        ("docker.host", "none", None),
        ("docker.dns", ["2001:DB8::1"], ["2001:db8::1"]),
        ("runs.listen_host", "::1", "::1"),
        ("runs.listen_host", "none", None),
        ("runs.api_url", "none", None),
        ("runs.http_proxy", "none", None),
        ("runs.env", {"PREFECT_LOGGING_LEVEL": "DEBUG"}, {"PREFECT_LOGGING_LEVEL": "DEBUG"}),
    ],
)
def test_a_value_that_can_work_is_taken(key: str, value: Any, kept: Any) -> None:
    section, _, name = key.partition(".")
    assert getattr(getattr(load(None, {key: value}), section), name) == kept


def test_secret_addresses_are_kept_whole() -> None:
    settings = load(
        None, {"runs.index_url": "https://u:p%40@index.example/simple", "runs.https_proxy": "http://u:p@proxy:3128"}
    )
    assert settings.runs.index_url is not None
    assert settings.runs.index_url.get_secret_value() == "https://u:p%40@index.example/simple"
    assert settings.runs.https_proxy is not None
    assert settings.runs.https_proxy.get_secret_value() == "http://u:p@proxy:3128"


def test_the_least_is_not_more_than_the_most() -> None:
    assert "min_runs = 5 is more than max_runs = 4" in refused(**{"scheduler.min_runs": 5, "scheduler.max_runs": 4})
    told = refused(**{"scheduler.min_horizon_seconds": 20, "scheduler.max_horizon_seconds": 10})
    assert told.startswith("scheduler")
    assert "min_horizon_seconds = 20.0 is more than max_horizon_seconds = 10.0" in told
    both = {"runs.install_timeout_seconds": 7_200, "runs.pending_deadline_seconds": 60}
    assert load(None, both).runs.install_timeout_seconds == 7_200


def test_a_ca_bundle_holds_certificates(tmp_path: Path) -> None:
    from tests.support.certificates import Authority

    path = tmp_path / "ca.pem"
    settings = load(None, {"runs.ca_bundle": str(path)})

    def told() -> str:
        with pytest.raises(ManagedError) as caught:
            read_ca_bundle(settings)
        assert caught.value.code is ErrorCode.CONFIG
        return caught.value.message

    assert told() == f"runs.ca_bundle: {path} can't be read: No such file or directory"
    for content in (b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff\xfe"):
        path.write_bytes(content)
        assert told().startswith(f"runs.ca_bundle: {path} holds no certificate")
    path.write_bytes("# Zertifizierungsstelle für uns\n".encode() + Authority(tmp_path / "made").bundle.read_bytes())
    assert read_ca_bundle(settings) == path.read_bytes()
    assert read_ca_bundle(load(None, {})) is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MANAGEDD_SERVER_PORT", "MANAGEDD_SERVER__PORT"),
        ("MANAGEDD_SERVER__PROT", "MANAGEDD_SERVER__PORT"),
        ("MANAGEDD_RUNS__ENV__TOKEN", "MANAGEDD_RUNS__ENV"),
        ("MANAGEDD_CONFG", "MANAGEDD_CONFIG"),
        ("managedd_default_plam", "MANAGEDD_DEFAULT_PLAN"),
        ("MANAGEDD_PLANS__PRO__RUNS", "variable MANAGEDD_PLANS__PRO__RUNS"),
        ("MANAGEDD_X", "MANAGEDD_SECTION__KEY"),
    ],
)
def test_an_unknown_variable_is_refused(name: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    told = refused()
    assert name in told
    assert hint in told


def test_a_bad_value_names_its_variable_or_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "(flag)" in refused(**{"server.port": -1})
    monkeypatch.setenv("MANAGEDD_SERVER__PORT", "x")
    assert "MANAGEDD_SERVER__PORT" in refused()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "managedd.example"])
def test_a_listener_beyond_loopback_asks_for_a_credential(host: str, write: Callable[[str], Path]) -> None:
    settings = load(write(f"[server]\nhost = '{host}'\n"), {})
    assert not settings.is_open
    assert host in settings.why_nobody_comes_in
    assert "managedd key create" in settings.why_nobody_comes_in
    assert not load(write(f"[server]\nhost = '{host}'\nauth_string = 'me:pw'\n"), {}).is_open


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_a_loopback_listener_asks_for_one_when_it_is_told_to(host: str) -> None:
    assert load(None, {"server.host": host}).is_open
    assert not load(None, {"server.host": host, "server.auth_string": "me:pw"}).is_open
    asking = load(None, {"server.host": host, "auth.mode": "key"})
    assert not asking.is_open
    assert "auth.mode" in asking.why_nobody_comes_in


def test_an_empty_credential_is_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANAGEDD_SERVER__AUTH_STRING", "")
    assert "server.auth_string" in refused()


def test_secrets_are_masked_wherever_settings_are_shown(write: Callable[[str], Path]) -> None:
    settings = load(write("[server]\nauth_string = 'me:hunter2'\n[runs]\nindex_url = 'https://u:hunter2@i/'\n"), {})
    shown = repr(settings) + str(settings) + settings.model_dump_json()
    assert "hunter2" not in shown
    assert "hunter2" not in refused(write("[server]\nauth_string = ['hunter2']\n"))


def test_paths_are_absolute_and_home_is_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load(None, {"store.data_dir": "~/data"}).store.data_dir == Path("/home/somebody/data")
    assert load(None, {"store.data_dir": "data"}).store.data_dir == Path.cwd() / "data"


@pytest.mark.parametrize(
    ("docker", "wrong"),
    [
        ({"host_allow": ["x"]}, 'a port such as "5432"'),
        ({"host_allow": ["0"]}, "a port"),
        ({"host_allow": ["65536"]}, "a port"),
        ({"host_allow": ["2001:db8::1:80"]}, "a port"),
        ({"host_allow": ["host.example:80"]}, "an IP address and a port"),
        ({"egress_allow": ["10.0.0.1/8"]}, "without host bits"),
        ({"egress_allow": ["-x.example"]}, "the name of a host"),
        ({"egress_allow": ["192.0.2"]}, "an IP address"),
        ({"egress_allow": ["https://pypi.org"]}, "the name of a host"),
        ({"egress_allow": [], "firewall": "off"}, 'firewall is "off"'),
        ({"capabilities": ["SYS_ADMIN"]}, "CHOWN"),
    ],
)
def test_what_runs_may_reach_is_said_in_words_that_can_be_held(docker: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(wrong)):
        Settings.model_validate({"docker": docker})


def test_what_runs_may_reach() -> None:
    given = {
        "host_allow": ["*", "5432", "192.0.2.1:80", "[2001:db8::1]:80"],
        "egress_allow": ["10.0.0.0/8", "192.0.2.1", "PyPI.org."],
    }
    docker = Settings.model_validate({"docker": given}).docker
    assert docker.host_allow == given["host_allow"]
    assert docker.egress_allow == ["10.0.0.0/8", "192.0.2.1/32", "pypi.org"]
    assert [addresses.way_of(text) for text in docker.host_allow[1:]] == [
        (None, 5432), ("192.0.2.1", 80), ("2001:db8::1", 80),
    ]  # fmt: skip
    assert Settings.model_validate({"docker": {"egress_allow": "none"}}).docker.egress_allow is None
