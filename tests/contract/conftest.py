"""One live daemon, one git server and one Prefect user for the tests of this folder, made when the first test asks for them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.place import POOL, Place
from tests.support.certificates import Authority
from tests.support.daemon import LiveDaemon
from tests.support.git_server import GitServer
from tests.support.prefect_user import PrefectUser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.provision import Provisioned

FLOWS = Path(__file__).with_name("flows")


@pytest.fixture(scope="session")
def place(
    docker_engine: Provisioned, prefect_venv: Provisioned, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A daemon that runs containers, a pool, and the flows of this folder in a repository that containers reach."""
    folder = tmp_path_factory.mktemp("place")
    authority = Authority(folder / "authority")
    bundle = folder / "ca-bundle.pem"
    # Where this machine's own authorities are needed to reach the package index, runs need them as well.
    host = os.environ.get("SSL_CERT_FILE")
    bundle.write_bytes((Path(host).read_bytes() if host else b"") + authority.bundle.read_bytes())
    daemon = LiveDaemon(
        folder / "daemon",
        docker_host=docker_engine.docker_host,
        settings={
            "runs": {
                "listen_port": 0,
                "ca_bundle": str(bundle),
                "cancel_grace_seconds": 15.0,
                "stop_grace_seconds": 3.0,
                "disk_limit_bytes": 300 * 1024**2,
                "pids_limit": 256,
            },
            # Repositories, indexes and stores of the tests are servers of this host.
            "docker": {"host_allow": ["*"]},
        },
    )
    with contextlib.ExitStack() as until_the_end:
        until_the_end.callback(daemon.close)
        daemon.start()
        git = until_the_end.enter_context(GitServer(folder / "git", daemon.gateway).serving())
        secure = until_the_end.enter_context(
            GitServer(folder / "git", daemon.gateway, certificate=authority.certificate(daemon.gateway)).serving()
        )
        user = PrefectUser(prefect_venv, daemon.url, folder / "user")
        made = Place(
            folder=folder,
            daemon=daemon,
            user=user,
            git=git,
            secure_git=secure,
            bundle=bundle,
            flows=git.repository("flows", {path.name: path for path in FLOWS.glob("*.py")}),
        )
        user.prefect("work-pool", "create", POOL, "--type", "prefect:managed")
        yield made
        # Whatever the tests did, a client's mistake or a container's end is no error of the daemon's.
        assert daemon.complaints() == []
