"""The image flow runs start from: the official one where it is there or can be pulled, a stand-in of the same name otherwise."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.steps import STATE, CannotProvisionError, debian_root, install_packages, locked, run, step

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = "prefecthq/prefect:3-latest"
BASE = "managedd-test-base:latest"
LABEL = "managedd.tests.inputs"
RECIPE = Path(__file__).with_name("images") / "prefect"
BASE_PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates", "git", "tini")
# The server inside this release fails to import with fastapi 0.155 and later.
PREFECT_REQUIREMENTS = ("prefect==3.8.8", "fastapi==0.150.0")
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def ensure_images(docker_host: str) -> str:
    """The engine has the returned image; a stand-in made by an earlier run is kept while its inputs are the same."""
    found = _label(docker_host, IMAGE)
    if found == "":
        return IMAGE  # no label of ours: the official image, which we never replace
    if not _debian():
        if found is None:
            _pull(docker_host)
        return IMAGE
    with locked(STATE / "images.lock"):
        authorities = _authorities()
        base = _digest("debootstrap", _release("VERSION_CODENAME"), platform.machine(), *BASE_PACKAGES)
        recipe = [file.read_bytes() for file in sorted(RECIPE.iterdir())]
        wanted = _digest(base, *PREFECT_REQUIREMENTS, authorities.read_bytes(), *recipe)
        if _label(docker_host, IMAGE) == wanted:
            return IMAGE
        install_packages({"docker": "docker.io"})
        if _label(docker_host, BASE) != base:
            _make_base(docker_host, base)
        _make_stand_in(docker_host, wanted, authorities)
        # What an older recipe left without a name; an image that a container still uses stays.
        forget = ["image", "prune", "--force", "--filter", f"label={LABEL}"]
        run(["docker", "-H", docker_host, *forget], otherwise="docker image prune failed")
    return IMAGE


def _make_base(docker_host: str, inputs: str) -> None:
    install_packages({"debootstrap": "debootstrap"})
    mirror, suite = _mirror(), _release("VERSION_CODENAME")
    with _scratch() as folder:
        root = folder / "root"
        with step("making a minimal Debian for the image (debootstrap, about a minute)"):
            run(
                ["debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", suite, root, mirror],
                otherwise="debootstrap failed",
                env={"DEBIAN_FRONTEND": "noninteractive"},
            )
        for cache in (root / "var/cache/apt/archives", root / "var/lib/apt/lists"):
            shutil.rmtree(cache, ignore_errors=True)
            (cache / "partial").mkdir(parents=True)
        with step(f"importing {BASE}"):
            docker = ["docker", "-H", docker_host, "import", "-c", f"LABEL {LABEL}={inputs}", "-", BASE]
            with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as archive:
                imported = subprocess.run(docker, stdin=archive.stdout, capture_output=True, text=True, check=False)
            if archive.returncode != 0 or imported.returncode != 0:
                raise CannotProvisionError(f"docker import failed: {imported.stderr.strip()}")


def _make_stand_in(docker_host: str, inputs: str, authorities: Path) -> None:
    with _scratch() as folder, step(f"building a stand-in for {IMAGE}"):
        for file in RECIPE.iterdir():
            shutil.copy(file, folder)
        shutil.copy(authorities, folder / AUTHORITIES.name)
        command = ["docker", "-H", docker_host, "build", "--network", "host", "--force-rm"]
        command += [
            "--build-arg",
            f"BASE={BASE}",
            "--build-arg",
            f"PREFECT_REQUIREMENTS={' '.join(PREFECT_REQUIREMENTS)}",
        ]
        command += ["--label", f"{LABEL}={inputs}", "--tag", IMAGE, str(folder)]
        # The classic builder is in every engine and sees the local base image, whatever builder the user has set up.
        run(command, otherwise=f"docker build of {IMAGE} failed", env={"DOCKER_BUILDKIT": "0"})


def _pull(docker_host: str) -> None:
    with step(f"pulling {IMAGE}"):
        run(
            ["docker", "-H", docker_host, "pull", "--quiet", IMAGE],
            otherwise=f"{IMAGE} can be neither built (that takes root on Debian) nor pulled",
        )


def _label(docker_host: str, image: str) -> str | None:
    """The digest of the inputs the image was made from, "" when it carries none; None when there is no such image."""
    done = subprocess.run(
        ["docker", "-H", docker_host, "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', image],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip().removeprefix("<no value>") if done.returncode == 0 else None


def _authorities() -> Path:
    """The certificate authorities this host trusts, as one file."""
    named = os.environ.get("SSL_CERT_FILE")
    if named and Path(named).is_file():
        return Path(named)
    install_packages({str(AUTHORITIES): "ca-certificates"})
    return AUTHORITIES


def _mirror() -> str:
    """The mirror from which this machine's own apt takes its release."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"]
    for attempt in range(2):
        for line in run(command, otherwise="apt-get cannot list its sources").splitlines():
            address, codename, component = line.split()
            if (codename, component) == (_release("VERSION_CODENAME"), "main") and address.startswith("http"):
                return address
        if attempt == 0:  # a machine on which apt-get update never ran lists nothing
            run(["apt-get", "-qq", "update"], otherwise="apt-get update failed")
    raise CannotProvisionError("apt on this machine has no http source for its own release to make an image from")


def _debian() -> bool:
    return debian_root() and _release("ID") == "debian"


def _release(key: str) -> str:
    return platform.freedesktop_os_release().get(key, "")


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder to build in, gone after the block; what killed runs have left of theirs is gone before it."""
    STATE.mkdir(parents=True, exist_ok=True)
    for left in STATE.glob("build-*"):
        _remove(left)
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=STATE))
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """The folder is gone, and nothing that an interrupted debootstrap has mounted below it was touched."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed([point for point in mounted if point.startswith(f"{folder}/")]):
        run(["umount", "--lazy", point], otherwise=f"cannot unmount {point}")
    shutil.rmtree(folder)
