"""HTTP and websockets: the only folder that knows aiohttp.web."""

from __future__ import annotations
