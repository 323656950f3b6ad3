"""Fields in a browser: what they are given they give back, and what is refused stands where it belongs."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from managedd.ui.forms import Field, fields_of
from managedd.ui.rendering import environment
from tests.ui.looking import HOSTILE

if TYPE_CHECKING:
    from tests.ui.conftest import Pages
    from tests.ui.looking import Looking

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

LETTERS = 'ab1 .-="\\/<>&{}[],:;\n\r\t\0\u00a0\ufeff\u2028é😀true null 1e5'
PARTS: dict[str, Any] = {
    "text": {"type": "string"},
    "secret": {"type": "string", "format": "password"},
    "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "lines": {"type": "array", "items": {"type": "string"}},
    "pairs": {"type": "object", "additionalProperties": {"type": "string"}},
    "scalar": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}]},
    "any": {},
}
MORE: tuple[tuple[Any, Any], ...] = (
    ({"type": "integer"}, 0),
    ({"type": "integer"}, -3),
    ({"type": "integer"}, 2**60 + 1),
    ({"type": "integer"}, "{{ prefect.variables.n }}"),
    ({"type": "number"}, 0.1),
    ({"type": "number"}, 1e-300),
    ({"type": "boolean"}, True),
    ({"type": "boolean"}, False),
    ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, None),
    ({"enum": ["a", 1, None, [1, "x"]]}, 1),
    ({"enum": ["a", 1, None, [1, "x"]]}, None),
    ({"enum": ["a", 1, None, [1, "x"]]}, [1, "x"]),
    ({"type": "string", "format": "date"}, "2026-02-28"),
    ({"type": "string", "format": "date-time"}, "2026-11-23T14:05:12.123456789+02:00"),
    ({"type": "string", "format": "date-time"}, "1999-12-31T23:59Z"),
    ({"type": "string", "format": "date-time"}, "2026-01-01T00:00:00"),
    ({"type": "string", "format": "date-time"}, "2026-01-01T07:30:01.120"),
    ({"type": "string", "format": "date-time"}, "2026-01-01T07:30:01.123456"),
    ({"type": "string", "format": "time"}, "09:30:00"),
    ({"anyOf": [{"type": "object", "properties": {"a": {"type": "string"}}}, {"type": "null"}]}, None),
    ({"anyOf": [{"type": "object", "properties": {"a": {"type": "string"}}}, {"type": "null"}]}, {"a": "1"}),
    ({"anyOf": [{"title": "Cat", "type": "object"}, {"title": "Dog", "type": "object"}]}, {"lives": 9}),
    ({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}, {"a": "1"}),
    ({"type": "object", "properties": {"a": {"type": "string"}}}, {}),
    ({"type": "object", "properties": {"__proto__": {"type": "object", "properties": {"hacked": {}}}}}, {"__proto__": {"hacked": 1}}),
    ({}, {"deep": [2**60 + 1, 1.5, None, {"__proto__": 2}]}),
)  # fmt: skip


def _values(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A schema with many properties, and values for them that are not easy to hold."""
    chance = random.Random(seed)

    def text(most: int = 7) -> str:
        return "".join(chance.choice(LETTERS) for _ in range(chance.randrange(most)))

    def value(kind: str) -> Any:
        match kind:
            case "lines":
                return [text() for _ in range(chance.randrange(3))]
            case "pairs":
                return {text(): text() for _ in range(chance.randrange(3))}
            case "maybe":
                return chance.choice([None, text()])
            case "scalar":
                return chance.choice([text(), 12, -2, True, "12", "true", '"x"', "null", "2" * 30, 2**60 + 1])
            case "any":
                return chance.choice([text(), [text(), 1, None], {text(): 0.5}, None, True])
            case _:
                return text()

    parts = [(kind, part) for kind, part in PARTS.items() for _ in range(25)]
    properties = {f"{kind}/{number} ~": part for number, (kind, part) in enumerate(parts)}
    values = {f"{kind}/{number} ~": value(kind) for number, (kind, _) in enumerate(parts)}
    for number, (part, given) in enumerate(MORE):
        properties[f"more-{number}"], values[f"more-{number}"] = part, given
    return {"type": "object", "properties": properties}, {**values, "no property": [HOSTILE]}


def _html(fields: tuple[Field, ...]) -> str:
    return str(environment().get_template("fields.html").module.fields(fields))  # type: ignore[attr-defined]


async def _show(looking: Looking, site: Pages, fields: tuple[Field, ...]) -> None:
    await looking.go(f"{site.url}/work-pools")
    await looking.page.evaluate(
        """async html => {
            const form = document.createElement("form");
            form.innerHTML = html;
            const main = document.getElementById("main");
            main.replaceChildren(form);
            const url = document.querySelector("script[src]").src.replace("app.js", "forms.js");
            window.forms = await import(url);
            window.forms.showMoments(form);
        }""",
        _html(fields),
    )


async def _collected(looking: Looking) -> Any:
    return json.loads(
        await looking.page.evaluate("JSON.stringify(window.forms.collect(document.querySelector('main form')))")
    )


async def test_what_nobody_touches_is_sent_just_as_it_was(site: Pages, looking: Looking) -> None:
    for seed in range(4):
        schema, values = _values(seed)
        await _show(looking, site, fields_of(schema, values, at="/parameters"))

        collected = await _collected(looking)

        assert collected == {"parameters": values}
        assert not await looking.is_hacked()
        assert await looking.page.evaluate("({}).hacked === undefined")


async def test_a_person_fills_in_a_form_and_is_told_what_cannot_be_read(site: Pages, looking: Looking) -> None:
    schema = {
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "title": "Name", "description": f"Who. {HOSTILE}"},
            "env": {**PARTS["pairs"], "title": "Environment", "default": {"A": "1"}},
            "packages": {**PARTS["lines"], "title": "Packages"},
            "size": {"anyOf": [{"type": "string"}, {"type": "integer"}], "title": "Size"},
            "colour": {"enum": ["red", "blue"], "title": "Colour"},
            "fast": {"type": "boolean", "title": "Fast", "default": True},
            "tries": {"type": "integer", "title": "Tries", "default": 3},
            "extra": {"title": "Extra"},
            "token": {"type": "string", "format": "password", "title": "Token"},
            "config": {"title": "Config", "type": "object", "required": ["level"], "properties": {"level": {"type": "integer", "title": "Level"}}, "default": {"level": 1}},
        },
    }  # fmt: skip
    await _show(looking, site, fields_of(schema))
    page = looking.page

    await page.get_by_label("Name").fill(HOSTILE)
    await page.get_by_label("Environment").fill("A=x=y\n\nB=")
    await page.get_by_label("Packages").fill(" pandas \n\nrequests")
    await page.get_by_label("Size").fill("512Mi")
    await page.get_by_label("Colour").select_option("blue")
    await page.get_by_label("Fast").uncheck()
    await page.get_by_label("Tries").fill("")
    await page.get_by_label("Level").fill("7")
    await page.get_by_label("Extra").fill("{")
    told = await page.evaluate("""() => {
        const form = document.querySelector("main form");
        try { window.forms.collect(form); } catch (problem) { window.forms.showErrors(form, problem); }
        return document.activeElement.getAttribute("aria-describedby");
    }""")
    assert "This is no JSON" in str(await page.locator(f"id={told.split()[-1]}").text_content())

    await page.get_by_label("Extra").fill('[1, "two"]')
    assert await _collected(looking) == {
        "name": HOSTILE,
        "env": {"A": "x=y", "B": ""},
        "packages": ["pandas", "requests"],
        "size": "512Mi",
        "colour": "blue",
        "fast": False,
        "extra": [1, "two"],
        "config": {"level": 7},
    }
    assert not await looking.is_hacked()
    assert await looking.barriers() == []


REFUSALS = (
    ("Error: job_variables.memory: '9Gi' is more than plan 'free' allows", "memory"),
    ("Error: job_variables.env.TOKEN: must be a text", "env"),
    ("Error: job_variables.packages[0]: 'env' is no requirement", "packages"),
    ("Validation failed for field 'memory_limit'. Failure reason: 'env' is not of type 'integer'", "memory_limit"),
    ("Validation failed for field 'config.level'. Failure reason: None", "config.level"),
)


async def test_a_refusal_stands_at_the_field_that_it_names_first(site: Pages, looking: Looking) -> None:
    names = ["env", "memory", "memory_limit", "packages"]
    config = {"type": "object", "properties": {"level": {}}, "default": {}}
    await _show(looking, site, fields_of({"properties": {**{name: {} for name in names}, "config": config}}))

    for message, field in REFUSALS:
        marked = await looking.page.evaluate(
            """message => {
                const form = document.querySelector("main form");
                window.forms.clearErrors(form);
                window.forms.showErrors(form, {message, errors: []});
                return [...form.querySelectorAll("[aria-invalid]")].map(each => each.dataset.name);
            }""",
            message,
        )
        assert marked == [field]
