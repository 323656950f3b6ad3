"""From what to run to what the engine is asked for: pure, no engine needed."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, Literal

from managedd.model.executions import container_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from managedd.model.addresses import Way
    from managedd.model.drivers import RunSpec

LABEL_INSTANCE: Final = "managedd.instance"
LABEL_EXECUTION: Final = "managedd.execution"
LABEL_FLOW_RUN: Final = "managedd.flow-run"
LABEL_FILES: Final = "managedd.files"
"""On a volume with the files that all runs share, and on the container through which it is filled: the digest of those files."""
HOME: Final = "/opt/managedd"
"""Where those files lie inside a run, which can't write there."""
FOLDERS: Final = ("/var/opt/managedd", "/var/tmp/managedd", "/tmp/managedd")  # noqa: S108 (of the run's own file system)
"""Where the shim writes inside a run: the first in which the image's user can. Files of one run alone are placed in the very first."""
REPORT: Final = "report.json"
REPORT_LINK: Final = "report"
"""The report in short, as the target of a link: the engine tells that without unpacking anything."""
REQUIREMENTS: Final = "requirements.txt"
CAPABILITIES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
"""All that stays of root: owning what archives unpack (pip, git, tar), and stepping down to another user. No network, device, kernel
or process power; `no-new-privileges` keeps set-uid programs from giving any back."""
LINE_MIN_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerSettings:
    """What the operator decides for every container."""

    log_max_bytes: int = 50 * 1024 * 1024
    """The engine rotates a container's log file at this size; set per container, the engine's own default may be too small to be read."""
    log_max_files: int = 2
    line_bytes: int = 64 * 1024
    """A longer line of output is stored as several."""
    dns: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    """`name:address`; the address may be `host-gateway`."""
    http_proxy: str | None = field(default=None, repr=False)
    https_proxy: str | None = field(default=None, repr=False)
    no_proxy: str | None = None
    ca_bundle: bytes | None = field(default=None, repr=False)
    """PEM certificates that runs trust beside those of their image."""
    package_index_url: str | None = field(default=None, repr=False)
    package_extra_index_urls: tuple[str, ...] = field(default=(), repr=False)
    capabilities: tuple[str, ...] = CAPABILITIES
    runtime: str | None = None
    """The engine's name of another container runtime, for example `runsc`."""
    storage_bytes: int | None = None
    """The size of a container's own file system, where the engine's storage driver can limit it."""
    python: str = "python3"
    """The interpreter in the image that runs the shim and into which packages are installed."""
    api_url: str | None = None
    """Where runs reach the API, when that is not one of the listeners that they are let in to."""
    firewall: Literal["auto", "require", "off"] = "auto"
    host_allow: tuple[Way, ...] = ()
    """What runs may reach of the engine's host beside the API and what stands above."""
    is_host_open: bool = False
    """They may reach all of it."""
    egress_allow: tuple[str, ...] | None = None
    """All that they may reach beyond it: networks and names; None: anything but a machine's metadata."""
    control_timeout_seconds: float = 30.0
    pull_stall_seconds: float = 600.0
    """A pull that says nothing for so long has failed."""

    def __post_init__(self) -> None:
        if self.line_bytes < LINE_MIN_BYTES:
            raise ValueError(
                f"line_bytes is {self.line_bytes}; engines cut lines at {LINE_MIN_BYTES} themselves, so it can't be less"
            )


def is_runtime_there(runtime: str, listed: Iterable[str]) -> bool:
    """Whether an engine that has `listed` can be asked for it: containerd's own go by full names or paths, which no engine lists."""
    return runtime in listed or "." in runtime or "/" in runtime


def network_name(instance_id: str) -> str:
    """The name of this daemon's own bridge network."""
    return f"managedd-{_short(instance_id)}"


def network_body(instance_id: str) -> dict[str, Any]:
    """The engine's request for it: runs reach the world and this host, never each other."""
    return {
        "Name": network_name(instance_id),
        "Driver": "bridge",
        "CheckDuplicate": True,
        "Labels": {LABEL_INSTANCE: instance_id},
        "Options": {"com.docker.network.bridge.enable_icc": "false"},
    }


def volume_prefix(instance_id: str) -> str:
    """How the names of all volumes of this daemon begin."""
    return f"managedd-{_short(instance_id)}-"


def volume_name(instance_id: str, digest: str, token: str) -> str:
    """The name of the volume with the files of that digest: never used twice, so that what bears it is filled or was never ours."""
    return f"{volume_prefix(instance_id)}{digest[:12]}-{token}"


def volume_body(instance_id: str, digest: str, token: str) -> dict[str, Any]:
    """The engine's request for it."""
    return {
        "Name": volume_name(instance_id, digest, token),
        "Driver": "local",
        "Labels": {LABEL_INSTANCE: instance_id, LABEL_FILES: digest},
    }


def filler_body(instance_id: str, digest: str, image: str, volume: str, folder: str) -> dict[str, Any]:
    """The engine's request for the container through which a volume is filled: never started. No image has that `folder`, of which an
    engine could copy something into the volume."""
    return {
        "Image": image,
        "Entrypoint": ["never-started"],
        "Cmd": [],
        "Labels": {LABEL_INSTANCE: instance_id, LABEL_FILES: digest},
        "HostConfig": {
            "NetworkMode": "none",
            "AutoRemove": False,
            "RestartPolicy": {"Name": "no"},
            "Mounts": [_mount(volume, folder, read_only=False)],
        },
    }


def _mount(volume: str, folder: str, *, read_only: bool) -> dict[str, Any]:
    # An engine would copy what an image has in that folder into an empty volume, for all other runs to find.
    options = {"NoCopy": True}
    return {"Type": "volume", "Source": volume, "Target": folder, "ReadOnly": read_only, "VolumeOptions": options}


def container_body(spec: RunSpec, settings: DockerSettings, volume: str | None = None) -> dict[str, Any]:
    """The engine's request for the container of `spec`, with the shared files in that volume; its image's own entry point stays in front of
    the command."""
    host: dict[str, Any] = {
        "NetworkMode": network_name(spec.instance_id),
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no"},
        # An init reaps and forwards signals in every image; TINI_SUBREAPER below keeps an image's own one from complaining about it.
        "Init": True,
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(settings.log_max_bytes), "max-file": str(settings.log_max_files)},
        },
        # Neither the host's nor another container's, whatever the engine's own default is.
        "IpcMode": "private",
        "SecurityOpt": ["no-new-privileges"],
        "CapDrop": ["ALL"],
        "CapAdd": list(settings.capabilities),
    }
    if spec.memory_bytes is not None:
        # Unset, swap would be as large again: an out-of-memory kill would come late, after long thrashing.
        host |= {"Memory": spec.memory_bytes, "MemorySwap": spec.memory_bytes}
    if spec.cpus is not None:
        host["NanoCpus"] = round(spec.cpus * 1_000_000_000)
    if spec.pids is not None:
        host["PidsLimit"] = spec.pids
    if settings.dns:
        host["Dns"] = list(settings.dns)
    if settings.extra_hosts:
        host["ExtraHosts"] = list(settings.extra_hosts)
    if settings.runtime is not None:
        host["Runtime"] = settings.runtime
    if settings.storage_bytes is not None:
        host["StorageOpt"] = {"size": str(settings.storage_bytes)}
    if volume is not None:
        host["Mounts"] = [_mount(volume, HOME, read_only=True)]
    requirements = ("--requirements", f"{FOLDERS[0]}/{REQUIREMENTS}") if spec.packages else ()
    return {
        "Image": spec.image,
        "Cmd": [
            settings.python, f"{HOME}/shim.py", "--cgroup", "/sys/fs/cgroup", *(f"--folder={folder}" for folder in FOLDERS), *requirements,
            "--install-timeout-seconds", str(spec.install_timeout_seconds), "--", *spec.command,
        ],
        "Env": [f"{name}={value}" for name, value in environment(spec, settings).items()],
        "Labels": {
            **spec.labels,
            LABEL_INSTANCE: spec.instance_id,
            LABEL_EXECUTION: spec.execution_id,
            LABEL_FLOW_RUN: spec.flow_run_id,
        },
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "OpenStdin": False,
        "Tty": False,
        "HostConfig": host,
    }  # fmt: skip


def environment(spec: RunSpec, settings: DockerSettings) -> dict[str, str]:
    """The run's environment: the operator's settings, under the run's own."""
    found: dict[str, str] = {"TINI_SUBREAPER": "1"}
    for name, value in (("http_proxy", settings.http_proxy), ("https_proxy", settings.https_proxy)):
        if value is not None:
            found |= {name: value, name.upper(): value}
    if settings.no_proxy is not None:
        # The shim adds this daemon: it alone sees what the user and the image say of proxies too.
        found |= {"no_proxy": settings.no_proxy, "NO_PROXY": settings.no_proxy}
    if settings.package_index_url is not None:
        found |= {"PIP_INDEX_URL": settings.package_index_url, "UV_DEFAULT_INDEX": settings.package_index_url}
    if settings.package_extra_index_urls:
        extra = " ".join(settings.package_extra_index_urls)
        found |= {"PIP_EXTRA_INDEX_URL": extra, "UV_INDEX": extra}
    return found | dict(spec.env)


def shared_files(settings: DockerSettings) -> dict[str, tuple[bytes, int]]:
    """What is the same for every run of this daemon: path → (content, mode). Nothing of it is secret. Also what another driver places."""
    here = resources.files("managedd.drivers")
    files: dict[str, tuple[bytes, int]] = {
        "shim.py": ((here / "shim.py").read_bytes(), 0o644),
        "python/managedd_run_log.py": ((here / "run_log.py").read_bytes(), 0o644),
        "python/managedd_run_git.py": ((here / "run_git.py").read_bytes(), 0o644),
    }
    if settings.ca_bundle is not None:
        files["extra-ca.pem"] = (settings.ca_bundle, 0o644)
    return files


def own_files(spec: RunSpec) -> dict[str, tuple[bytes, int]]:
    """What is placed for this run alone, readable by its user alone: most runs have nothing."""
    if not spec.packages:
        return {}
    return {REQUIREMENTS: ("".join(f"{package}\n" for package in spec.packages).encode(), 0o600)}


def digest_of(files: Mapping[str, tuple[bytes, int]]) -> str:
    """The same for the same files, in hexadecimal."""
    digest = hashlib.sha256()
    for path, (content, mode) in sorted(files.items()):
        digest.update(f"{path} {mode:o} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def archive(files: Mapping[str, tuple[bytes, int]], folder: str, *, uid: int, gid: int) -> bytes:
    """A tar of `files` in `folder`, to be unpacked in `/`, owned by the user who will run there."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        folders = {"", *(path.rpartition("/")[0] for path in files)}
        for inner in sorted(folders):
            entry = tarfile.TarInfo(f"{folder}/{inner}".strip("/"))
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, uid, gid
            tar.addfile(entry)
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(f"{folder}/{path}".strip("/"))
            entry.size, entry.mode, entry.uid, entry.gid = len(content), mode, uid, gid
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def user_of(user: str, passwd: str) -> tuple[int, int]:
    """Who runs in a container whose configuration names `user`, by its own user list; root when it cannot be told."""
    name, _, group = user.partition(":")
    entry = next(
        (fields for line in passwd.splitlines() if len(fields := line.split(":")) >= 4 and name in fields[0:3:2]), None
    )
    uid = int(name) if name.isdecimal() else int(entry[2]) if entry and entry[2].isdecimal() else 0
    gid = int(group) if group.isdecimal() else int(entry[3]) if entry and entry[3].isdecimal() else 0
    return uid, gid


def _short(instance_id: str) -> str:
    """The end of the identity: the beginning of a version 7 UUID is the time and alike for daemons of one day."""
    return instance_id.replace("-", "")[-12:]


def name_of(spec: RunSpec) -> str:
    """The container's name, the same each time."""
    return container_name(spec.execution_id)
