"""What the engine is asked for."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest

from managedd.drivers.docker_spec import (
    CAPABILITIES,
    FOLDERS,
    DockerSettings,
    archive,
    container_body,
    digest_of,
    environment,
    name_of,
    network_body,
    network_name,
    own_files,
    shared_files,
    user_of,
    volume_name,
    volume_prefix,
)
from managedd.model.drivers import RunSpec

INSTANCE = "01994c2e-7d3b-7abc-8def-0123456789ab"


def spec(**changes: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "execution_id": "e1",
        "flow_run_id": "f1",
        "instance_id": INSTANCE,
        "image": "prefecthq/prefect:3-latest",
        **changes,
    }
    return RunSpec(**fields)


def test_limits_and_hardening() -> None:
    host = container_body(spec(memory_bytes=2 << 30, cpus=1.5, pids=100), DockerSettings())["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        2 << 30,
        2 << 30,
        1_500_000_000,
        100,
    )
    assert (host["SecurityOpt"], host["IpcMode"]) == (["no-new-privileges"], "private")
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], list(CAPABILITIES))
    assert (host["Init"], host["AutoRemove"], host["RestartPolicy"]) == (True, False, {"Name": "no"})
    assert not host.keys() & {
        "Binds",
        "Mounts",
        "Privileged",
        "PortBindings",
        "PidMode",
        "UTSMode",
        "UsernsMode",
        "CgroupnsMode",
        "MaskedPaths",
        "ReadonlyPaths",
        "VolumesFrom",
        "Devices",
    }


def test_unset_limits_are_not_sent() -> None:
    assert not container_body(spec(), DockerSettings())["HostConfig"].keys() & {
        "Memory",
        "MemorySwap",
        "NanoCpus",
        "PidsLimit",
        "Runtime",
    }


def test_log_files_are_set_per_container() -> None:
    host = container_body(spec(), DockerSettings(log_max_bytes=1_000_000, log_max_files=3))["HostConfig"]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1000000", "max-file": "3"}}


def test_ours_wins_over_given_labels() -> None:
    labels = container_body(
        spec(labels={"prefect.io/flow-name": "f", "managedd.instance": "forged"}), DockerSettings()
    )["Labels"]
    assert labels == {
        "prefect.io/flow-name": "f",
        "managedd.instance": INSTANCE,
        "managedd.execution": "e1",
        "managedd.flow-run": "f1",
    }
    assert name_of(spec()) == "managedd-e1"


def test_the_command_is_the_shims_and_the_entry_point_the_images() -> None:
    body = container_body(
        spec(command=("prefect", "flow-run", "execute"), install_timeout_seconds=30), DockerSettings()
    )
    assert body["Cmd"][:2] == ["python3", "/opt/managedd/shim.py"]
    assert body["Cmd"][body["Cmd"].index("--") + 1 :] == ["prefect", "flow-run", "execute"]
    assert body["Cmd"][body["Cmd"].index("--install-timeout-seconds") + 1] == "30"
    assert "Entrypoint" not in body
    assert [argument for argument in body["Cmd"] if argument.startswith("--folder=/")] != []
    assert "--requirements" not in body["Cmd"]
    assert "/var/opt/managedd/requirements.txt" in container_body(spec(packages=("a",)), DockerSettings())["Cmd"]


def test_network() -> None:
    body = network_body(INSTANCE)
    assert body["Name"] == network_name(INSTANCE) == "managedd-0123456789ab"
    assert body["Labels"] == {"managedd.instance": INSTANCE}
    assert body["Options"] == {"com.docker.network.bridge.enable_icc": "false"}
    assert container_body(spec(), DockerSettings())["HostConfig"]["NetworkMode"] == body["Name"]


def test_the_operators_settings_reach_the_run_under_its_own() -> None:
    settings = DockerSettings(
        https_proxy="http://proxy:3128",
        no_proxy="internal",
        dns=("10.0.0.1",),
        extra_hosts=("git:10.0.0.2",),
        package_index_url="https://u:p@index/simple",
        package_extra_index_urls=("https://a/simple", "https://b/simple"),
        runtime="runsc",
        storage_bytes=1 << 30,
    )
    run = spec(env={"PREFECT_API_URL": "http://172.18.0.1:4201/api", "PIP_INDEX_URL": "https://own/simple"})
    found = environment(run, settings)
    assert (found["HTTPS_PROXY"], found["https_proxy"]) == ("http://proxy:3128", "http://proxy:3128")
    assert (found["NO_PROXY"], found["no_proxy"]) == ("internal", "internal")
    assert found["PIP_INDEX_URL"] == "https://own/simple"
    assert found["UV_DEFAULT_INDEX"] == "https://u:p@index/simple"
    assert found["UV_INDEX"] == "https://a/simple https://b/simple"
    host = container_body(run, settings)["HostConfig"]
    assert (host["Dns"], host["ExtraHosts"], host["Runtime"]) == (["10.0.0.1"], ["git:10.0.0.2"], "runsc")
    assert host["StorageOpt"] == {"size": str(1 << 30)}


def test_secrets_are_not_shown() -> None:
    settings = DockerSettings(
        package_index_url="https://u:hunter2@index", https_proxy="http://u:hunter2@proxy", ca_bundle=b"hunter2"
    )
    assert "hunter2" not in repr(settings)


def entries_of(packed: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {entry.name: entry for entry in tar.getmembers()}


def test_files_are_private_where_they_must_be() -> None:
    files = own_files(spec(packages=("a==1", "git+https://token@host/b")))
    packed = archive(files, FOLDERS[0], uid=1000, gid=100)
    entries = entries_of(packed)
    assert {entry.uid for entry in entries.values()} == {1000}
    assert {entry.gid for entry in entries.values()} == {100}
    assert entries["var/opt/managedd"].isdir()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        requirements = tar.extractfile("var/opt/managedd/requirements.txt")
        assert requirements is not None
        assert requirements.read() == b"a==1\ngit+https://token@host/b\n"
    assert entries["var/opt/managedd/requirements.txt"].mode == 0o600
    assert own_files(spec()) == {}


def test_what_runs_share_can_be_read_by_every_user_and_tells_nothing() -> None:
    settings = DockerSettings(
        ca_bundle=b"PEM", package_index_url="https://u:hunter2@index", https_proxy="http://u:hunter2@proxy"
    )
    packed = archive(shared_files(settings), "/opt/managedd", uid=0, gid=0)
    entries = entries_of(packed)
    assert entries.keys() == {
        "opt/managedd",
        "opt/managedd/shim.py",
        "opt/managedd/python",
        "opt/managedd/python/managedd_run_log.py",
        "opt/managedd/python/managedd_run_git.py",
        "opt/managedd/extra-ca.pem",
    }
    assert {entry.mode for entry in entries.values()} == {0o755, 0o644}
    assert b"hunter2" not in packed


def test_the_volume_is_of_these_files_and_this_daemon() -> None:
    ours, others = (digest_of(shared_files(DockerSettings(ca_bundle=bundle))) for bundle in (None, b"PEM"))
    assert ours != others
    name = volume_name(INSTANCE, ours, "token")
    assert name.startswith(volume_prefix(INSTANCE))
    assert ours[:12] in name
    assert not volume_name("01994c2e-7d3b-7abc-8def-0123456789ff", ours, "token").startswith(volume_prefix(INSTANCE))


def test_the_shared_files_are_read_only_and_nothing_of_an_image_gets_among_them() -> None:
    (mount,) = container_body(spec(), DockerSettings(), "managedd-volume")["HostConfig"]["Mounts"]
    assert mount == {
        "Type": "volume",
        "Source": "managedd-volume",
        "Target": "/opt/managedd",
        "ReadOnly": True,
        "VolumeOptions": {"NoCopy": True},
    }


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("1000", (1000, 0)),
        ("1000:7", (1000, 7)),
        ("flow", (1001, 100)),
        ("flow:9", (1001, 9)),
        ("nobody-here", (0, 0)),
        ("1001", (1001, 100)),
    ],
)
def test_who_runs(user: str, expected: tuple[int, int]) -> None:
    assert user_of(user, "root:x:0:0:root:/root:/bin/sh\nflow:x:1001:100::/home/flow:/bin/sh\nbroken\n") == expected


def test_lines_cannot_be_shorter_than_engines_cut_them() -> None:
    with pytest.raises(ValueError, match="line_bytes"):
        DockerSettings(line_bytes=1000)
