"""A page asks what the API answers: the same operations, rights, validation and workspace, without a connection between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from multidict import MultiDict

from managedd import ids
from managedd.api import rights, surface
from managedd.api.context import Context, Reply
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web
    from multidict import MultiMapping

    from managedd.api.app import Api
    from managedd.api.context import Actor, Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A workspace, and where its pages are, as seen from one page."""

    account: str
    workspace: str
    root: str
    """The way to the daemon's own root: `./`, `../`, `../../` … so that a path prefix of a proxy makes no difference."""

    def of(self, account: str, workspace: str) -> Place:
        """Another workspace, as seen from the same page."""
        return Place(account=account, workspace=workspace, root=self.root)

    @property
    def home(self) -> str:
        """Under which the workspace's pages are."""
        return f"{self.root}{self.scope}"

    @property
    def scope(self) -> str:
        """The workspace in a page's path; empty for the default one."""
        return "" if self._is_default else f"account/{self.account}/workspace/{self.workspace}/"

    @property
    def api(self) -> str:
        """Under which the workspace's operations are."""
        return f"{self.root}api/" + (
            "" if self._is_default else f"accounts/{self.account}/workspaces/{self.workspace}/"
        )

    @property
    def _is_default(self) -> bool:
        return self.workspace == ids.DEFAULT_WORKSPACE_ID and self.account == ids.DEFAULT_ACCOUNT_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One page's request: who asks, where, for what, and the way to the answers."""

    api: Api
    services: Services
    request: web.Request
    actor: Actor
    place: Place

    @property
    def query(self) -> MultiMapping[str]:
        """What stands behind the `?` of the page's address."""
        return self.request.query

    async def get(self, path: str, /, **query: Any) -> Any:
        """The answer of a GET, as plain data. Raises ManagedError, InvalidRequest."""
        return await self.call("GET", path, query=query)

    async def post(self, path: str, body: Mapping[str, Any] | None = None, /) -> Any:
        """The answer of a POST that reads, as plain data. Raises ManagedError, InvalidRequest."""
        return await self.call("POST", path, body=body or {})

    async def call(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        """The operation's answer, as plain data. Raises ManagedError, also where nobody may do that; InvalidRequest."""
        matched = surface.match(method, path)
        if matched is None:
            raise ManagedError(ErrorCode.NOT_FOUND, "There is no such page.")
        operation, path_values = matched
        context = Context(
            services=self.services,
            workspace=self.place.workspace,
            account=self.place.account,
            actor=self.actor,
            operation=operation,
            path_values=path_values,
            listener=self.api.listener,
            headers=self.request.headers,
            request=self.request,
            document=self.api.document,
            limits=self.api.limits,
        )
        await rights.check(self.services, operation, self.actor, path_values)
        asked = MultiDict((name, _text(value)) for name, value in (query or {}).items() if value is not None)
        arguments = operation.bind(path_values, asked, b"" if body is None else orjson.dumps(body))
        return _plain(await operation.handler(context, **arguments))

    def may(self, line: str) -> bool:
        """Whether who asks may use the operation, `POST /work_pools/` for example: what they may not is not offered to them."""
        return self.actor.level >= rights.RULES.get(line, rights.UNLISTED).level


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _plain(answer: Any) -> Any:
    """What a client would read; rows may hold JSON that is written already."""
    body = answer.body if isinstance(answer, Reply) else answer
    written = body if isinstance(body, bytes) else orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
    return orjson.loads(written)
