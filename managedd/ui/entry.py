"""The way in to the pages: what makes them is loaded when the daemon is ready, or when somebody comes before; a start does not wait for it."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

    from managedd.api.app import Api
    from managedd.api.context import Services
    from managedd.ui.site import Site


class Entry:
    """Answers with pages, once they are asked for."""

    def __init__(self, services: Services, api: Api) -> None:
        self._services = services
        self._api = api

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The page at the request's path, or one that says why not."""
        return await self._site.answer(request)

    def load(self) -> None:
        """Nobody waits for the pages' modules any more."""
        import_module("managedd.ui.page").every_page()
        _ = self._site

    @cached_property
    def _site(self) -> Site:
        made: Site = import_module("managedd.ui.site").Site(self._services, self._api)
        return made
