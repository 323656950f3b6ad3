"""Tenants' Jinja templates: what they may do, and what they can't do to us."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from managedd.errors import ErrorCode, ManagedError
from managedd.orchestration.templates import MAX_OUTPUT_LENGTH, MAX_TEMPLATE_LENGTH, check, render

VALUES: dict[str, Any] = {
    "text": "hello world",
    "numbers": [3, 1, 2],
    "event": {"resource": {"prefect.resource.id": "prefect.flow-run.1"}, "payload": {"rows": 7}},
    "runs": [{"name": "a", "late": True}, {"name": "b", "late": False}],
    "at": datetime(2026, 3, 8, 12, tzinfo=UTC),
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("nothing to do", "nothing to do"),
        ("{{ text }}", "hello world"),
        ("{{ text|upper }} and {{ text.split(' ')[1] }}", "HELLO WORLD and world"),
        ("{{ event.payload.rows * 2 + 1 }}", "15"),
        ("{{ event.resource['prefect.resource.id'].split('.')[-1] }}", "1"),
        ("{{ nope }}{{ nope.deeper.still }}", ""),
        ("{{ nope|default('none') }}", "none"),
        ("{% if numbers|length > 2 %}many{% elif numbers %}some{% else %}no{% endif %}", "many"),
        ("{% for run in runs if run.late %}{{ loop.index }}{{ run.name }}{% endfor %}", "1a"),
        ("{{ numbers|sort|join('-') }}", "1-2-3"),
        ("{{ runs|join(',', 'name') }}", "a,b"),
        ("{{ runs|map(attribute='name')|list }}", "['a', 'b']"),
        ("{{ event.payload|tojson }}", '{"rows": 7}'),
        ("{{ at.isoformat() }}", "2026-03-08T12:00:00+00:00"),
        ("{{ text|replace('o', '0') }}", "hell0 w0rld"),
        ("{{ 2.345|round(1) }}", "2.3"),
        ("{{ 'a' ~ 1 }}{{ 'yes' if 1 in numbers else 'no' }}", "a1yes"),
        ("{% for n in range(3) %}{{ n }}{% endfor %}", "012"),
        ("{# silence #}{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("{{ text|truncate(5, True) }}", "he..."),
        ("{{ '<b>' }}", "<b>"),
    ],
)
def test_what_templates_can_do(template: str, text: str) -> None:
    assert render(template, VALUES) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{ text.__class__.__mro__ }}",
        "{{ text['__class__'] }}",
        "{{ text.upper.__globals__ }}",
        "{{ (text|first).__init__ }}",
    ],
)
def test_the_inside_of_python_is_empty(template: str) -> None:
    assert render(template, VALUES) == ""


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ text", "unexpected end"),
        ("{% set x = 1 %}", "'assign' in line 1 is not allowed"),
        ("{% macro f() %}{% endmacro %}", "not allowed"),
        ("{% include 'x' %}", "not allowed"),
        ("{% import 'x' as y %}", "not allowed"),
        ("{% block x %}{% endblock %}", "not allowed"),
        ("{% filter upper %}x{% endfilter %}", "not allowed"),
        ("{{ text|attr('__class__') }}", "No filter"),
        ("{{ lipsum() }}", "a call in line 1"),
        ("{{ text.format(1) }}", "a call in line 1"),
        ("{{ text.split(*numbers) }}", r"\*"),
        ("{{ numbers.append(1) }}", "a call in line 1"),
        ("{{ 'x' * 10**10 }}", "longer than"),
        ("{{ 10**10 * 'x' }}", "longer than"),
        ("{{ numbers * 10**9 }}", "longer than"),
        ("{{ 9**9**9**9**9 }}", "too large"),
        ("{{ 10**100000 }}", "too large"),
        ("{{ '%1000000000d' % 5 }}", "formatting with %"),
        ("{{ text|center(10**9) }}", "No filter"),
        ("{{ 5|round(-1000000000) }}", "round takes"),
        ("{{ 5|round(1, 'ceil') }}", "round takes"),
        ("{{ numbers|tojson(indent=99999999) }}", "tojson takes"),
        ("{{ ('a' * 30000)|replace('a', 'b' * 30000) }}", "longer than"),
        ("{{ ['a' * 20000, 'a' * 20000]|join }}", "longer than"),
        ("{{ ('a' * 30000) + ('a' * 30000) }}", "longer than"),
        ("{% for i in range(101) %}{% endfor %}", "more than 100"),
        ("{% for i in 'x' * 600 %}{% endfor %}", "more than 500"),
        ("{% for i in numbers recursive %}{% endfor %}", "none recursive"),
        ("{% for i in numbers %}" * 3 + "{% endfor %}" * 3, "2 inside each other"),
        ("{% for i in numbers %}{% endfor %}" * 11, "at most 10 loops"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ numbers + 1 }}", "can only concatenate"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "nested too deeply"),
        ("{{ " + "9" * 5000 + " }}", "number too large"),
        ("x" * (MAX_TEMPLATE_LENGTH + 1), "longer than"),
        (
            "{% for a in range(100) %}{% for b in range(100) %}{{ 'x' * 1000 }}{% endfor %}{% endfor %}",
            "the result is longer",
        ),
    ],
)
def test_what_templates_cannot_do_is_said_quickly(template: str, says: str) -> None:
    began = time.process_time()
    with pytest.raises(ManagedError, match=says) as caught:
        render(template, VALUES)
    assert caught.value.code is ErrorCode.BAD_REQUEST
    assert caught.value.message.startswith("Invalid jinja: ")
    assert len(caught.value.message) < 600
    assert time.process_time() - began < 2


def test_large_values_and_many_names_do_not_go_together() -> None:
    large = {"text": "x" * 100_000}
    assert len(render("{{ text }}", large)) == 100_000
    with pytest.raises(ManagedError, match="too large"):
        render("{{ [" + "text, " * 1000 + "1] }}", large)


def test_the_result_is_bounded_by_the_caller_too() -> None:
    assert render("{{ text }}", VALUES, max_length=11) == "hello world"
    with pytest.raises(ManagedError, match="longer than 10"):
        render("{{ text }}", VALUES, max_length=10)
    with pytest.raises(ManagedError, match=f"longer than {MAX_OUTPUT_LENGTH}"):
        render("{{ text }}", {"text": "x" * (MAX_OUTPUT_LENGTH + 1)})


def test_checking_renders_nothing() -> None:
    check("{{ 1 / 0 }}")
    with pytest.raises(ManagedError, match="Invalid jinja"):
        check("{{ 1 / }}")
