"""A page: a path, a template, and the function that gathers what it shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from managedd.api.operation import InvalidRequest
from managedd.api.routing import Router
from managedd.bus import Topic
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from managedd.ui.asking import Ask

Gather = Callable[..., Awaitable[Mapping[str, Any]]]
"""`async def name(ask, <path parameters>)`: what the template is given, its `title` among it."""

MODULES: Final = (
    "elsewhere",
    "work_pools",
    "work_pool_forms",
    "deployments",
    "deployment",
    "schedule",
    "runs",
    "flow_run",
    "run_log",
    "usage",
    "host",
    "settings",
    "blocks",
    "client_login",
)
"""Of `managedd.ui.views`."""
SECTIONS: Final = {
    "work-pools": "Work pools",
    "deployments": "Deployments",
    "runs": "Runs",
    "usage": "Usage",
    "host": "Host",
    "settings": "Settings",
}
"""The places of the navigation, each with its name; the path of each is the key."""
ANYTHING: Final = (Topic.RUNS, Topic.QUEUE, Topic.SLOTS, Topic.EXECUTIONS, Topic.SCHEDULES, Topic.EVENTS)
"""What a page may show has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is found by a path."""

    path: str
    template: str
    gather: Gather
    section: str
    """Its place in the navigation."""
    topics: tuple[Topic, ...] = ANYTHING
    """After what it is made again while somebody looks at it; none: never, as what a person has typed in would go."""
    every_seconds: float = 30.0
    """And after what time at the latest."""
    method: str = "GET"

    @property
    def line(self) -> str:
        """Its name in messages."""
        return f"{self.method} {self.path}"

    @property
    def subject(self) -> str:
        """What it is about, where its path names one: `flow run`."""
        return self.path.partition("/{")[0].rpartition("/")[2].replace("-", " ")


class Sent(Exception):
    """A page has nothing to show but the way to another one."""

    def __init__(self, where: str) -> None:
        """`where` is a path below the workspace's home, without a slash before it."""
        super().__init__(where)
        self.where = where


def page(
    path: str, *, template: str, section: str, topics: tuple[Topic, ...] = ANYTHING, every_seconds: float = 30.0
) -> Callable[[Gather], Gather]:
    """The decorated function gathers what the page at `path` shows; `router` finds it."""

    def declare(gather: Gather) -> Gather:
        pages = gather.__dict__.setdefault("__pages__", [])
        pages.append(
            Page(
                path=path, template=template, gather=gather, section=section, topics=topics, every_seconds=every_seconds
            )
        )
        return gather

    return declare


async def gathered(found: Page, ask: Ask, values: Mapping[str, str]) -> dict[str, Any]:
    """What the page's template is given. Raises ManagedError, InvalidRequest, Sent."""
    try:
        return dict(await found.gather(ask, **values))
    except InvalidRequest as error:
        if values and any(each["loc"][0] == "path" for each in error.errors):
            raise ManagedError(ErrorCode.NOT_FOUND, f"There is no such {found.subject}.") from None
        raise


def section_of(path: str) -> str:
    """The place in the navigation of a page's path, also of one that leads to no page."""
    matched = router().match("GET", path)
    if matched is not None:
        return matched[0].section
    beside = f"/{path.split('/')[1]}/"
    return next((each.section for each in every_page() if each.path.startswith(beside)), "work-pools")


@cache
def every_page() -> tuple[Page, ...]:
    """Every page of every module."""
    members = (member for name in MODULES for member in vars(import_module(f"managedd.ui.views.{name}")).values())
    return tuple(each for member in members for each in getattr(member, "__pages__", ()))


def sections(ask: Ask) -> set[str]:
    """The places of the navigation that have a page which this person may see."""
    found = {each.section for each in every_page()}
    return found if ask.may("GET /managed/status") else found - {"host"}


@cache
def router() -> Router[Page]:
    """Pages by path."""
    return Router(every_page())
