"""Blocks of types that the real client has registered: made and changed in the pages, and loaded by that client."""

from __future__ import annotations

import json
import os
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.ui.looking import HOSTILE

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Page

    from tests.support.provision import Provisioned
    from tests.ui.conftest import Pages
    from tests.ui.looking import Looking

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.client]

BLOCKS = '''
import json, sys
from typing import Any, Literal, Optional, Union
from pydantic import BaseModel, Field, SecretStr
from prefect.blocks.core import Block
from prefect.blocks.fields import SecretDict
from prefect.blocks.system import Secret

class Login(BaseModel):
    user: str
    password: SecretStr

class Warehouse(Block):
    """Where **everything** lies."""
    login: Login
    key: Secret
    spare: Union[Secret, None] = None
    size: int = Field(default=3, ge=1)
    mode: Literal["fast", "slow"] = "fast"
    pin: Optional[SecretStr] = None
    word: SecretStr = SecretStr("known to the type")
    service: SecretDict = Field(default_factory=lambda: SecretDict({}))
    headers: dict[str, str] = {}

def plain(value):
    if hasattr(value, "get_secret_value"):
        return plain(value.get_secret_value())
    if isinstance(value, Secret):
        return plain(value.value)
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    return value

if sys.argv[1] == "register":
    Secret.register_type_and_schema()
    Warehouse.register_type_and_schema()
else:
    print(json.dumps(plain(Block.load(sys.argv[1]))))
'''


async def _client(there: Provisioned, home: Path, site: Pages, what: str) -> Any:
    """What the script says, run with the real client."""
    own = {"PREFECT_HOME": str(home), "PREFECT_LOGGING_LEVEL": "ERROR", "PREFECT_API_URL": f"{site.url}/api"}
    assert there.prefect_python is not None
    done = await anyio.run_process(
        [there.prefect_python, "-c", BLOCKS, what],
        env={**os.environ, **own, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        stderr=PIPE,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return json.loads(done.stdout or "null")


async def _saved(page: Page, button: str) -> None:
    await page.get_by_role("button", name=button, exact=True).click()
    await page.get_by_role("heading", name="Load it").wait_for()


async def test_blocks_that_the_pages_make_and_change_are_loaded_by_the_client(
    site: Pages, looking: Looking, prefect_venv: Provisioned, tmp_path: Path
) -> None:
    page = looking.page
    await _client(prefect_venv, tmp_path, site, "register")
    await looking.go(f"{site.url}/blocks/catalog")
    await page.get_by_role("link", name="Secret").click()
    await page.wait_for_url("**/blocks/catalog/secret/create")
    await looking.ready()
    assert await page.get_by_label("Value required").get_attribute("type") == "password"
    await page.get_by_label("Name required").fill("api-key")
    await page.get_by_label("Value required").fill(f"1234 {HOSTILE}")
    await _saved(page, "Create")
    assert await _client(prefect_venv, tmp_path, site, "secret/api-key") == f"1234 {HOSTILE}"

    await looking.go(f"{site.url}/blocks/catalog/secret/create?as=json")
    await page.get_by_label("Name required").fill("many-lines")
    await page.get_by_label("Data required").fill('{"value": {"pem": "one\\ntwo", "n": 1}}')
    await _saved(page, "Create")
    assert await _client(prefect_venv, tmp_path, site, "secret/many-lines") == {"pem": "one\ntwo", "n": 1}

    await looking.go(f"{site.url}/blocks/catalog/warehouse/create")
    assert await page.locator("main strong").inner_text() == "everything"
    assert await looking.barriers() == []
    await page.get_by_label("Name required").fill("main")
    await page.get_by_label("User").fill("ann")
    await page.get_by_label("Password").fill("hunter2")
    await page.locator("[data-at='/data/key']").select_option("api-key")
    await page.locator("[data-at='/data/service']").fill('{"account": "a-1", "private_key": "pk"}')
    await page.get_by_label("Headers").fill('{"A": "1"}')
    await _saved(page, "Create")
    made = await _client(prefect_venv, tmp_path, site, "warehouse/main")
    assert made == {
        "login": {"user": "ann", "password": "hunter2"}, "key": f"1234 {HOSTILE}", "spare": None, "size": 3, "mode": "fast", "pin": None,
        "word": "known to the type", "service": {"account": "a-1", "private_key": "pk"}, "headers": {"A": "1"},
    }  # fmt: skip
    shown = await page.content()
    assert not [each for each in ("hunter2", "1234 ", "a-1", "known to") if each in shown]

    await page.get_by_role("link", name="Edit").click()
    await page.wait_for_url("**/edit")
    await looking.ready()
    assert not [each for each in ("hunter2", "1234 ", "a-1", "known to") if each in await page.content()]
    await _saved(page, "Save")
    assert await _client(prefect_venv, tmp_path, site, "warehouse/main") == made, "what nobody has touched"
    await page.get_by_role("link", name="Edit").click()
    await page.wait_for_url("**/edit")
    await looking.ready()
    await page.get_by_label("Mode").select_option("slow")
    await page.locator("[data-at='/data/spare']").select_option("many-lines")
    await page.get_by_label("Word", exact=True).fill("another")
    await page.get_by_label("Pin", exact=True).fill("77")
    await _saved(page, "Save")
    changed = await _client(prefect_venv, tmp_path, site, "warehouse/main")
    assert changed == {
        **made, "mode": "slow", "spare": {"pem": "one\ntwo", "n": 1}, "word": "another", "pin": "77",
    }  # fmt: skip
    assert not await looking.is_hacked()
