"""How one content becomes the next one in the browser: what belongs to the person stays, what is the server's is made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.ui.conftest import Pages
    from tests.ui.looking import Looking

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

BECOMES = """async ([before, after, meanwhile]) => {
  const { morph } = await import(document.querySelector("script[type=module]").src.replace("app.js", "morph.js"));
  document.body.innerHTML = `<main>${before}</main>`;
  const main = document.querySelector("main"), made = document.createElement("main");
  made.innerHTML = after;
  eval(meanwhile);
  morph(main, made);
  return { html: main.innerHTML, values: [...main.querySelectorAll("select, input")].map((each) => each.value) };
}"""


async def becomes(site: Pages, looking: Looking, before: str, after: str, meanwhile: str = "") -> dict[str, Any]:
    """What `before` is after it has become `after`; `meanwhile` is what the person does, as a script."""
    looking.expected.append("Content Security Policy")
    await looking.page.goto(f"{site.url}/settings")
    session = await looking.context.new_cdp_session(looking.page)
    await session.send("Page.setBypassCSP", {"enabled": True})
    await looking.go(f"{site.url}/settings")
    found = await looking.page.evaluate(BECOMES, [before, after, meanwhile])
    return dict(found)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<p id="x">a</p>', '<form id="x">a</form>'),
        ('<p data-key="x">a</p><p data-key="y">b</p>', '<p data-key="y">b</p><div data-key="x">a</div>'),
        ('<ul><li id="a">1</li><li id="b">2</li></ul>', '<ul><li id="b">2</li><li id="c">3</li><li id="a">1</li></ul>'),
        ('<p>text</p>more<b id="k">k</b>', '<b id="k">l</b><!-- said -->more<p class="x">text</p>'),
        ('<svg><rect id="r" width="1"/></svg>', '<svg><circle id="r" r="1"></circle></svg>'),
    ],
)
async def test_whatever_there_was_it_becomes_what_was_made(
    site: Pages, looking: Looking, before: str, after: str
) -> None:
    assert (await becomes(site, looking, before, after))["html"] == after


def _form(*choices: str, chosen: str = "", typed: str = "") -> str:
    options = "".join(
        f'<option value="{each}"{" selected" if each == chosen else ""}>{each}</option>' for each in ("", *choices)
    )
    return f'<form data-keep><input name="q" value="{typed}"><select name="pool">{options}</select></form>'


CHOOSES = "main.querySelector('select').value = {!r}"


async def test_a_kept_forms_choices_are_made_anew_and_what_the_person_has_put_in_stays(
    site: Pages, looking: Looking
) -> None:
    types = "main.querySelector('input').value = 'typed'"
    found = await becomes(site, looking, _form("a"), _form("a", "b"), types)
    assert 'value="b"' in found["html"]
    assert found["values"] == ["typed", ""]

    found = await becomes(site, looking, _form("a", "b"), _form("b", "c"), CHOOSES.format("b"))
    assert found["values"] == ["", "b"]
    assert 'value="c"' in found["html"]

    # What the address has chosen is chosen still; what is there no more can't be.
    assert (await becomes(site, looking, _form("a", chosen="a"), _form("a", "b", chosen="a")))["values"] == ["", "a"]
    assert (await becomes(site, looking, _form("a"), _form("b"), CHOOSES.format("a")))["values"] == ["", ""]


async def test_nothing_moves_in_a_kept_form_while_somebody_is_in_it(site: Pages, looking: Looking) -> None:
    inside = CHOOSES.format("a") + "; main.querySelector('input').focus()"
    found = await becomes(site, looking, _form("a"), _form("b"), inside)
    assert found["values"] == ["", "a"]
    assert 'value="b"' not in found["html"]


async def test_a_list_that_an_element_of_our_own_has_filled_stays(site: Pages, looking: Looking) -> None:
    before = '<form data-keep><x-from><datalist id="d"></datalist></x-from></form>'
    found = await becomes(
        site,
        looking,
        before,
        before.replace("data-keep", 'data-keep class="x"'),
        "main.querySelector('datalist').append(new Option('a'))",
    )
    assert "<option>a</option>" in found["html"]
    assert 'class="x"' in found["html"]


async def test_a_filter_offers_a_pool_that_was_made_meanwhile(site: Pages, looking: Looking) -> None:
    await looking.go(f"{site.url}/deployments?q=x")
    pools = looking.page.locator("main select[name=pool]")
    assert await pools.locator("option").count() == 1
    await site.api.post("/work_pools/", {"name": "meanwhile", "type": "process"})
    await pools.locator("option", has_text="meanwhile").wait_for(state="attached")
    assert await looking.page.get_by_label("Name or flow contains").input_value() == "x"
