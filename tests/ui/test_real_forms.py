"""Forms of what the real client says: the parameters of a flow, and the input that a paused run waits for, read back by that client."""

from __future__ import annotations

import json
import os
from subprocess import PIPE
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.api.deployed import deploy, pool_of, runs_of
from tests.ui.looking import HOSTILE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.provision import Provisioned
    from tests.ui.conftest import Pages
    from tests.ui.looking import Looking

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.client]

FLOW = '''
import datetime, enum, json, sys
from typing import Annotated, Any, Literal, Optional, Union
from uuid import UUID
from pydantic import BaseModel, Field, SecretStr
from prefect import flow
from prefect.utilities.callables import parameter_schema

class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Store(BaseModel):
    """Where it lies."""
    host: str = Field(default="local", description="The host.")
    port: int = Field(default=5432, ge=1, le=65535)

class Config(BaseModel):
    name: str
    store: Store = Store()
    replica: Optional[Store] = None
    password: SecretStr = SecretStr("known to the flow")

class Cat(BaseModel):
    lives: int = 9

class Dog(BaseModel):
    barks: bool = True

@flow
def load(
    config: Config,
    mode: Literal["fast", "slow"],
    color: Color = Color.RED,
    other: Optional[Color] = None,
    count: Optional[int] = None,
    size: Annotated[int, Field(ge=2, le=8)] = 3,
    names: list[str] = ["a"],
    numbers: list[int] = [1],
    options: dict = {},
    env: dict[str, str] = {"A": "b"},
    at: Optional[datetime.datetime] = None,
    since: datetime.datetime = datetime.datetime(2026, 1, 1),
    day: datetime.date = datetime.date(2026, 1, 1),
    clock: datetime.time = datetime.time(9, 30),
    span: datetime.timedelta = datetime.timedelta(hours=1),
    secret: SecretStr = SecretStr("the default"),
    token: Optional[SecretStr] = None,
    either: Union[int, str] = 1,
    number: Union[int, float, None] = 2.5,
    pet: Union[Cat, Dog] = Cat(),
    uid: Optional[UUID] = None,
    untyped=None,
    flag: bool = False,
    maybe: Optional[bool] = None,
    many: list[Literal["a", "b"]] = ["a"],
):
    """Loads.

    Args:
        count: How many of them.
    """

def plain(value):
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return {"": type(value).__name__, **{name: plain(getattr(value, name)) for name in type(value).model_fields}}
    if isinstance(value, enum.Enum):
        return value.name
    return value.isoformat() if hasattr(value, "isoformat") else value

if sys.argv[1] == "schema":
    print(json.dumps(parameter_schema(load).model_dump()))
else:
    found = load.validate_parameters(json.load(sys.stdin))
    print(json.dumps({name: plain(value) for name, value in found.items()}, default=str))
'''

ASKS = """
import json, sys
from typing import Literal, Optional
from pydantic import Field, SecretStr
from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

class Approval(RunInput):
    amount: int = Field(description="In euros.")
    reason: str = "none"
    how: Literal["card", "cash"]
    note: Optional[str] = None
    pin: SecretStr = SecretStr("0000")

@flow
def asks():
    asked = Approval.with_initial_data(description=sys.argv[1], reason="as always")
    found = pause_flow_run(wait_for_input=asked, timeout=300, poll_interval=1)
    return {"amount": found.amount, "reason": found.reason, "how": found.how, "note": found.note, "pin": found.pin.get_secret_value()}

print("answer:" + json.dumps(asks()))
"""


async def _client(
    there: Provisioned, home: Path, script: str, *arguments: str, api: str | None = None, told: str = ""
) -> str:
    """What the script says, run with the real client."""
    quiet = {"PREFECT_HOME": str(home), "PREFECT_LOGGING_LEVEL": "ERROR", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    env = {**os.environ, **quiet, **({"PREFECT_API_URL": api} if api else {})}
    assert there.prefect_python is not None
    done = await anyio.run_process(
        [there.prefect_python, "-c", script, *arguments], input=told.encode(), env=env, stderr=PIPE, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout.decode()


async def test_the_form_of_a_flows_parameters_gives_that_flow_what_somebody_has_filled_in(
    site: Pages, looking: Looking, prefect_venv: Provisioned, tmp_path: Path
) -> None:
    schema = json.loads(await _client(prefect_venv, tmp_path, FLOW, "schema"))
    await pool_of(site.api)
    made = await deploy(site.api, work_pool_name="mine", parameter_openapi_schema=schema)
    page = looking.page
    looking.expected = ["409", "422"]
    await looking.go(f"{site.url}/deployments/deployment/{made['id']}/run")
    assert await looking.barriers() == []
    assert (
        await page.locator("[data-at]").evaluate_all("all => all.filter(each => each.value.includes('*****')).length")
        == 0
    )
    await page.get_by_text("How many of them.").wait_for()
    await page.get_by_label("Name required").fill(HOSTILE)
    await page.get_by_label("mode required").select_option("slow")
    await page.get_by_role("button", name="Run", exact=True).click()
    await page.wait_for_url("**/runs/flow-run/*")

    (run,) = await runs_of(site.api, made)
    got = json.loads(await _client(prefect_venv, tmp_path, FLOW, "read", told=json.dumps(run["parameters"])))
    store = {"": "Store", "host": "local", "port": 5432}
    assert got == {
        "config": {"": "Config", "name": HOSTILE, "store": store, "replica": None, "password": "known to the flow"},
        "mode": "slow", "color": "RED", "other": None, "count": None, "size": 3, "names": ["a"], "numbers": [1], "options": {}, "env": {"A": "b"},
        "at": None, "since": "2026-01-01T00:00:00", "day": "2026-01-01", "clock": "09:30:00", "span": "1:00:00", "secret": "the default",
        "token": None, "either": 1, "number": 2.5, "pet": {"": "Cat", "lives": 9}, "uid": None, "untyped": None, "flag": False, "maybe": None,
        "many": ["a"],
    }, "what nobody has touched is what the flow has by default"  # fmt: skip

    await looking.go(f"{site.url}/deployments/deployment/{made['id']}/run")
    await page.get_by_label("Name required").fill("other")
    await page.get_by_label("mode required").select_option("fast")
    await page.get_by_label("Give replica").check()
    replica = page.locator("[data-at^='/parameters/config/replica/']")
    await replica.nth(0).fill("far")
    await page.locator("[data-at='/parameters/config/password']").fill("hunter2")
    await page.get_by_label("color", exact=True).select_option("blue")
    await page.get_by_label("other", exact=True).select_option("red")
    await page.get_by_label("count", exact=True).fill("7")
    await page.get_by_label("names", exact=True).fill("x\ny")
    await page.get_by_label("numbers", exact=True).fill("[3, 4]")
    await page.get_by_label("options", exact=True).fill('{"deep": {"list": [1, null]}}')
    await page.get_by_label("env", exact=True).fill("A=1\nB==")
    await page.get_by_label("at", exact=True).fill("2026-11-23T10:20")
    await page.get_by_label("since", exact=True).fill("2026-02-03T04:05")
    await page.get_by_label("day", exact=True).fill("2026-12-24")
    await page.get_by_label("clock", exact=True).fill("23:59:00")
    await page.get_by_label("span", exact=True).fill("PT90S")
    await page.get_by_label("secret", exact=True).fill("s3cr3t")
    await page.get_by_label("token", exact=True).fill("t0k3n")
    await page.get_by_label("either", exact=True).fill("many")
    await page.get_by_label("number", exact=True).fill("4")
    await page.get_by_label("pet", exact=True).fill('{"barks": false}')
    await page.get_by_label("uid", exact=True).fill("6f0c3f0e-8d5f-4e0b-9d0e-0a1b2c3d4e5f")
    await page.get_by_label("untyped", exact=True).fill('["x"]')
    await page.get_by_label("flag", exact=True).check()
    await page.get_by_label("maybe", exact=True).select_option("Yes")
    await page.get_by_label("many", exact=True).fill("a\nb")
    size = page.get_by_label("size", exact=True)
    assert (await size.get_attribute("min"), await size.get_attribute("max")) == ("2", "8")
    await size.evaluate("field => field.removeAttribute('max')")
    await size.fill("9")
    await page.get_by_role("button", name="Run", exact=True).click()
    assert "9 is greater than the maximum of 8" in await page.locator(".problem").inner_text()
    await size.fill("8")
    await page.get_by_role("button", name="Run", exact=True).click()
    await page.wait_for_url("**/runs/flow-run/*")
    parameters = (await runs_of(site.api, made))[-1]["parameters"]
    got = json.loads(await _client(prefect_venv, tmp_path, FLOW, "read", told=json.dumps(parameters)))
    zoned = await page.evaluate("new Date('2026-11-23T10:20').toISOString()")
    assert got.pop("at")[:16] == zoned[:16]
    far = {"": "Store", "host": "far", "port": 5432}
    assert got == {
        "config": {"": "Config", "name": "other", "store": store, "replica": far, "password": "hunter2"},
        "mode": "fast", "color": "BLUE", "other": "RED", "count": 7, "size": 8, "names": ["x", "y"], "numbers": [3, 4],
        "options": {"deep": {"list": [1, None]}}, "env": {"A": "1", "B": "="}, "since": "2026-02-03T04:05:00", "day": "2026-12-24",
        "clock": "23:59:00", "span": "0:01:30", "secret": "s3cr3t", "token": "t0k3n", "either": "many", "number": 4,
        "pet": {"": "Dog", "barks": False}, "uid": "6f0c3f0e-8d5f-4e0b-9d0e-0a1b2c3d4e5f", "untyped": ["x"], "flag": True, "maybe": True,
        "many": ["a", "b"],
    }  # fmt: skip
    assert not await looking.is_hacked()


async def test_a_flow_that_waits_for_input_is_given_what_somebody_has_filled_in(
    site: Pages, looking: Looking, prefect_venv: Provisioned, tmp_path: Path
) -> None:
    page, heard = looking.page, []

    async def flow() -> None:
        heard.append(
            await _client(prefect_venv, tmp_path, ASKS, f"How much? **Please.** {HOSTILE}", api=f"{site.url}/api")
        )

    async with anyio.create_task_group() as group:
        group.start_soon(flow)
        await looking.go(f"{site.url}/runs?state=PAUSED")
        asking = page.locator("table.runs tr", has_text="Paused").get_by_role("rowheader").get_by_role("link")
        await asking.click(timeout=120_000)
        await page.get_by_role("link", name="Resume with input").click()
        await looking.ready()
        assert "How much?" in await page.locator(".said").inner_text()
        assert await page.locator(".said strong").inner_text() == "Please."
        assert await page.get_by_label("Reason").input_value() == "as always"
        await page.get_by_text("In euros.").wait_for()
        assert await looking.barriers() == []
        await page.get_by_label("Amount").fill("12")
        await page.get_by_label("How required").select_option("cash")
        await page.get_by_label("Note").fill(HOSTILE)
        await page.get_by_role("button", name="Resume").click()
        await page.wait_for_url("**/runs/flow-run/*")
    answer = json.loads(heard[0].partition("answer:")[2])
    assert answer == {"amount": 12, "reason": "as always", "how": "cash", "note": HOSTILE, "pin": "0000"}
    assert not await looking.is_hacked()
