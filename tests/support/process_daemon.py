"""A live daemon whose runs are processes of this host, and the environments that all of a checkout's tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio

from managedd.drivers import run_tree
from managedd.drivers.process import ProcessDriver, ProcessSettings
from managedd.drivers.process_files import RunFolder
from managedd.model.drivers import Liveness, RunSpec
from tests.support.daemon import LiveDaemon
from tests.support.steps import STATE, locked, step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

IMAGE = "prefecthq/prefect:3-latest"
FOLDER = STATE / "environments"


def ensure_environments(folder: Path = FOLDER) -> Path:
    """The returned folder has an environment for the usual image, which cost seconds to make the first time."""
    with locked(folder.with_name(f"{folder.name}.lock")), step("a Python environment for runs without containers"):
        anyio.run(_prepare, folder)
    return folder


async def _prepare(folder: Path) -> None:
    driver = ProcessDriver("tests", ProcessSettings(runs_dir=folder / "no-runs", env_dir=folder))
    await driver.open()

    async def quiet(_line: str) -> None: ...

    spec = RunSpec(execution_id="none", flow_run_id="none", instance_id="tests", image=IMAGE)
    await driver.prepare(spec, quiet)


def with_command(environments: Path, folder: Path, name: str, program: Path) -> Path:
    """A copy of the environments, by links where it can be, in which the command of that name is the program."""
    copied = folder / "environments"
    subprocess.run(["cp", "-al", str(environments), str(copied)], check=True)
    for made in copied.glob("prefect-*/bin"):
        (made / name).unlink()
        shutil.copy2(program, made / name)
        (made / name).chmod(0o755)
    return copied


class ProcessDaemon(LiveDaemon):
    """A live daemon without a container engine."""

    def __init__(
        self, folder: Path, *, environments: Path, settings: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__(folder, docker_host=None, settings=settings)
        self.settings["runs"] |= {"driver": "process"}
        # As root, only who says so lets everybody on the host start processes; other users' daemons are tested as they are.
        self.settings.setdefault("process", {}).update(env_dir=str(environments), trusted=os.geteuid() == 0)

    @property
    def runs_dir(self) -> Path:
        """Where the folders of its runs are."""
        return self.data_dir / "runs"

    def folders(self) -> list[RunFolder]:
        """The folders of its runs."""
        return [RunFolder(self.runs_dir, path.name) for path in self.runs_dir.glob("*")]

    def containers(self, *, flow_run_id: str | None = None, all_: bool = True) -> list[str]:
        return [
            folder.execution_id
            for folder in self.folders()
            if (all_ or folder.liveness() is Liveness.RUNNING)
            and flow_run_id in {None, (folder.spec() or {}).get("flow_run_id")}
        ]

    def live_runs(self) -> Counter[str]:
        return Counter(
            str((folder.spec() or {}).get("flow_run_id"))
            for folder in self.folders()
            if folder.liveness() is Liveness.RUNNING
        )

    def remove_leftovers(self) -> None:
        for folder in self.folders():
            assert run_tree.kill_marked(folder.execution_id, str(folder.path), 10)
            folder.remove()

    def wait_live(self, count: int, seconds: float = 60) -> None:
        """So many runs are under way, or the test fails."""
        deadline = time.monotonic() + seconds
        while len(self.live_runs()) < count:
            assert time.monotonic() < deadline, self.log_tail()
            time.sleep(0.05)
