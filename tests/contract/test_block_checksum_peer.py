"""Our checksums of block schemas against those that Prefect's client computes."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from managedd.orchestration.block_schemas import checksum
from tests.support.steps import STATE

if TYPE_CHECKING:
    from tests.support.provision import Provisioned

pytestmark = pytest.mark.client

_PROGRAM = """
import json, sys
from typing import List, Optional, Union
from pydantic import BaseModel, SecretStr
from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from prefect.blocks.webhook import Webhook
from prefect.filesystems import LocalFileSystem
from prefect.types import SecretDict

class Plain(BaseModel):
    colour: str = "grün"

class Inner(Block):
    token: SecretStr
    more: Optional[Plain] = None

class Outer(Block):
    inner: Inner
    either: Union[Inner, LocalFileSystem, None] = None
    plains: List[Plain] = []
    info: Optional[SecretDict] = None
    ratio: float = 1.0

made = {}
for block in (Secret, Webhook, LocalFileSystem, Inner, Outer):
    fields = block._to_block_schema(block_type_id="00000000-0000-4000-8000-000000000001").fields
    made[block.__name__] = [fields, block._calculate_schema_checksum()]
json.dump(made, sys.stdout)
"""


def test_checksums_are_those_of_the_client(prefect_venv: Provisioned) -> None:
    assert prefect_venv.prefect_python is not None
    done = subprocess.run(
        [prefect_venv.prefect_python, "-c", _PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env={"PREFECT_HOME": str(STATE / "prefect-home"), "PATH": "/usr/bin:/bin", "DO_NOT_TRACK": "1"},
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert len(made) == 5
    for name, (fields, wanted) in made.items():
        assert checksum(fields) == wanted, name
