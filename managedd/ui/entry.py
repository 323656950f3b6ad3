"""The way in to the pages: what makes them is loaded when somebody comes. A daemon whose pages nobody looks at does without."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import anyio

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
        self._site: Site | None = None
        self._loading = anyio.Lock()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The page at the request's path, or one that says why not."""
        site = self._site or await self._loaded()
        return await site.answer(request)

    async def _loaded(self) -> Site:
        async with self._loading:
            if self._site is None:
                # On a thread: it takes tenths of a second, in which others are answered.
                self._site = await anyio.to_thread.run_sync(self._make)
        return self._site

    def _make(self) -> Site:
        import_module("managedd.ui.page").every_page()
        made: Site = import_module("managedd.ui.site").Site(self._services, self._api)
        return made
