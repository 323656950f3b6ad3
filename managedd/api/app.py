"""The application: one dispatch from a request to an operation's answer, the same on every listener."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from aiohttp import HttpVersion11, web

from managedd import ids
from managedd.api import browser, errors, login, rights, sessions, surface
from managedd.api.audit import refusals_noted
from managedd.api.auth import Listener, authenticate, believed, credential, enter
from managedd.api.context import ANONYMOUS, Actor, Context, Reply, Services
from managedd.api.forwarded import Proxies, middleware
from managedd.api.limits import Limits, read_body, source_of
from managedd.api.openapi import ServedDocument
from managedd.api.operation import InvalidRequest
from managedd.api.routing import MethodNotAllowed
from managedd.errors import ErrorCode, ManagedError
from managedd.observe import get_log

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from managedd.api.operation import Operation

log = get_log("api")

PREFIX = "/api"
HEALTH = "/health"
WEBSOCKET = "WS"
"""The method name of operations that are websockets."""
MAX_VERSION_PARTS = 3
THREAD_BYTES = 256 * 1024
"""Larger bodies are validated on a thread: it takes tens of milliseconds, which others would wait for."""


class Site(Protocol):
    """What answers where the API has no path: the web pages."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The page at the request's path, or one that says why not."""


class Api:
    """Routes requests of one listener."""

    def __init__(self, services: Services, listener: Listener) -> None:
        self._services = services
        self.limits = Limits(services.settings.server)
        self.proxies = Proxies(believed(listener, services.settings.server))
        self.document = ServedDocument(surface.all_operations, services.threads)
        self.listener = listener
        self._site: Site | None = None

    def application(self, site: Site | None = None) -> web.Application:
        """An aiohttp application that serves the API and, beside it, the site, if there is one."""
        self._site = site
        app = web.Application(
            client_max_size=self._services.settings.server.max_body_bytes,
            middlewares=[middleware(self.proxies), self._failures],
        )
        if self.listener is not Listener.RUNS and site is None:
            app.router.add_route("GET", login.PATH, login.page)
        app.router.add_route("*", "/{path:.*}", self._dispatch)
        return app

    @web.middleware
    async def _failures(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every failure becomes one answer in Prefect's shape; what has no name is logged in full and answered with nothing."""
        try:
            return await handler(request)
        except ManagedError as error:
            if error.code in errors.HIDDEN:
                return self._unknown(request, error)
            return errors.from_error(error)
        except InvalidRequest as error:
            return errors.invalid_request(error.errors)
        except MethodNotAllowed as error:
            return errors.problem(405, "Method Not Allowed", headers={"Allow": ", ".join(error.allowed)})
        except web.HTTPRequestEntityTooLarge:
            limit = self._services.settings.server.max_body_bytes
            return errors.problem(413, f"The request body is larger than {limit} bytes (server.max_body_bytes).")
        except web.HTTPException as error:
            return errors.problem(error.status, error.reason)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:
            return self._unknown(request, error)

    def _unknown(self, request: web.Request, error: Exception) -> web.Response:
        request_id = uuid.uuid4().hex
        log.error(
            "request.failed",
            request_id=request_id,
            method=request.method,
            path=request.path,
            client=request.remote,
            exc_info=error,
        )
        return errors.problem(
            500, f"Internal Server Error (request {request_id})", headers={"X-Request-Id": request_id}
        )

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        path, account, workspace = _scope(request.rel_url.raw_path)
        if path is None and self._site is not None and not request.path.startswith(PREFIX + "/"):
            return await self._site.answer(request)
        method = WEBSOCKET if request.headers.get("Upgrade", "").lower() == "websocket" else request.method
        matched = None if path is None else surface.match(method, path)
        if matched is None:
            return errors.problem(404, "Not Found")
        operation, path_values = matched
        if not self._services.ready and not operation.early:
            return self._maintenance()
        _check_api_version(request)
        if self.listener is Listener.CLIENTS and self._services.settings.is_open and not _is_probe(request, path):
            browser.check(request)
        actor = await self._actor(request, operation, account, workspace)
        context = Context(
            services=self._services,
            workspace=workspace,
            account=account,
            actor=actor,
            operation=operation,
            path_values=path_values,
            listener=self.listener,
            headers=request.headers,
            request=request,
            document=self.document,
            limits=self.limits,
        )
        if actor is not ANONYMOUS:
            with refusals_noted(context):
                await rights.check(self._services, operation, actor, path_values)
        if method == WEBSOCKET:
            response: web.StreamResponse = await operation.handler(
                context, **operation.bind(path_values, request.query, b"")
            )
            return response
        if not request.can_read_body:
            return await self._answer(operation, context, path_values, b"")
        with self.limits.body(request, source_of(request, actor)):
            return await self._answer(operation, context, path_values, await read_body(request))

    async def _answer(
        self, operation: Operation, ctx: Context, path: dict[str, str], body: bytes
    ) -> web.StreamResponse:
        arguments = await self._bind(operation, path, ctx.request.query, body)
        with refusals_noted(ctx):
            return _respond(operation, await operation.handler(ctx, **arguments))

    async def _bind(self, operation: Operation, path: dict[str, str], query: Any, body: bytes) -> dict[str, Any]:
        if len(body) <= THREAD_BYTES:
            return operation.bind(path, query, body)
        return await anyio.to_thread.run_sync(operation.bind, path, query, body, limiter=self._services.threads)

    def _maintenance(self) -> web.Response:
        """Clients wait without counting retries while this header is there (contract: retries of a restarting server)."""
        word = "stopping" if self._services.stopping else "starting"
        return errors.problem(503, f"managedd is {word}", headers={"Retry-After": "1", "Prefect-Maintenance": "true"})

    async def _actor(self, request: web.Request, operation: Operation, account: str, workspace: str) -> Actor:
        if operation.public and self.listener is not Listener.RUNS:
            return ANONYMOUS
        key = credential(request.headers)
        actor = await sessions.actor(self._services, request) if self.listener is Listener.CLIENTS else None
        if actor is None:
            if key is None and operation.method == WEBSOCKET:
                return ANONYMOUS
            actor = await authenticate(self._services, self.listener, key, request.remote)
        if actor is None:
            raise ManagedError(ErrorCode.UNAUTHORIZED, "Unauthorized")
        # What belongs to no workspace is answered below one's own as well, as Cloud's clients ask for it there.
        if operation.scoped or workspace != ids.DEFAULT_WORKSPACE_ID:
            await enter(self._services, actor, account, workspace)
        return actor


def _is_probe(request: web.Request, path: str | None) -> bool:
    """Whether a load balancer asks whether the daemon is up. No browser speaks HTTP/1.0, and the answer tells nothing else."""
    return path == HEALTH and request.version < HttpVersion11


def _scope(raw_path: str) -> tuple[str | None, str, str]:
    """The operation's path, the account and the workspace of a raw URL path; a path of None is no API path."""
    if not raw_path.startswith(PREFIX + "/"):
        return None, "", ""
    path = raw_path[len(PREFIX) :]
    parts = path.split("/", 5)
    if len(parts) == 6 and parts[1] == "accounts" and parts[3] == "workspaces":
        if not (ids.is_uuid(parts[2]) and ids.is_uuid(parts[4])):
            return None, "", ""
        return "/" + parts[5], ids.canonical(parts[2]), ids.canonical(parts[4])
    return path, ids.DEFAULT_ACCOUNT_ID, ids.DEFAULT_WORKSPACE_ID


def _check_api_version(request: web.Request) -> None:
    version = request.headers.get("X-PREFECT-API-VERSION")
    if version is None:
        return
    parts = version.split(".")
    if len(parts) != MAX_VERSION_PARTS or not all(part.isdecimal() for part in parts):
        raise ManagedError(
            ErrorCode.BAD_REQUEST,
            f"Invalid X-PREFECT-API-VERSION header format. Expected header in format 'x.y.z' but received {version[:40]!r}",
        )


def _respond(operation: Operation, result: Any) -> web.StreamResponse:
    if isinstance(result, web.StreamResponse):
        return result
    if isinstance(result, Reply):
        if isinstance(result.body, bytes):
            return web.Response(
                body=result.body, status=result.status, headers=dict(result.headers), content_type=result.content_type
            )
        if result.status == 204:
            return web.Response(status=204, headers=dict(result.headers))
        return errors.json_response(result.body, result.status, dict(result.headers))
    if operation.status == 204:
        return web.Response(status=204)
    return errors.json_response(result, operation.status)
