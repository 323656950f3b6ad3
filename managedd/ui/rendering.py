"""Templates: every value is escaped, and a name that nobody has given is an error."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from managedd import __version__
from managedd.api import preconditions
from managedd.ui import assets, markdown, words

if TYPE_CHECKING:
    from collections.abc import Mapping

FILTERS = {
    "duration": words.duration,
    "hours": words.hours,
    "size": words.size,
    "number": words.number,
    "kind": words.kind,
    "seg": words.segment,
    "exact": words.exact,
    "local": words.local,
    "day": words.day,
    "day_in": words.day_in,
    "plural": words.plural,
    "took": words.took,
    "markdown": markdown.html,
    "plain": markdown.plain,
    "marks": preconditions.marks,
}


def render(template: str, values: Mapping[str, Any]) -> str:
    """The template with these values."""
    return environment().get_template(template).render(values)


@cache
def environment() -> Environment:
    """Made when the first page is asked for."""
    made = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(FILTERS)
    made.globals.update({"version": __version__, "assets": assets.version(), "modules": assets.modules()})
    return made


def _source(name: str) -> str | None:
    file = resources.files("managedd.ui").joinpath("templates", name)
    return file.read_text(encoding="utf-8") if file.is_file() else None
