"""The status port: health and metrics over plain HTTP, with nothing secret in it and no effect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

from sidecar.admin.gate import Gate
from sidecar.admin.health import HealthSource, Probe, render_health
from sidecar.errors import UnavailableError
from sidecar.metrics import CONTENT_TYPE

log = logging.getLogger(__name__)

CONNECTION_LIMIT = 128
CONNECTION_LIFE_S = 10.0  # from accept to the last byte: whoever dawdles makes room


class StatusServer:
    """``/livez``, ``/readyz`` (with ``?verbose``) and ``/metrics``, GET and HEAD only, one call a connection.

    Anybody may connect here (a kubelet speaks no mTLS), so that what it says must be fit for anybody.
    """

    def __init__(
        self, host: str, port: int, health: HealthSource, render_metrics: Callable[[], bytes]
    ) -> None:
        self._host = host
        self._port = port
        self._render_metrics = render_metrics
        application = web.Application(middlewares=[_answer], client_max_size=1024)
        application.add_routes([*health_routes(health), web.get("/metrics", self._metrics)])
        application.on_response_prepare.append(hide_server)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        self._server: asyncio.Server | None = None
        self.port = port

    async def start(self) -> None:
        """Listens; ``port`` is then the real one. :class:`UnavailableError` if the address is taken."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        gate = Gate(server, limit=CONNECTION_LIMIT, life_s=CONNECTION_LIFE_S)
        try:
            self._server = await asyncio.get_running_loop().create_server(gate, self._host, self._port)
        except OSError as exc:
            await self._runner.cleanup()
            raise UnavailableError(
                f"the status port {self._host}:{self._port} cannot be opened: {exc.strerror}"
            ) from exc
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stops listening and cuts what is open. May be called twice, and without a start."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._render_metrics(), headers={"Content-Type": CONTENT_TYPE})


def health_routes(health: HealthSource) -> list[web.RouteDef]:
    """Routes of the two probes: 200 or 503, and text for people."""

    async def probe(request: web.Request) -> web.Response:
        name = cast(Probe, request.path.removeprefix("/"))
        answer = health(name)
        text = render_health(name, answer, verbose="verbose" in request.query)
        return web.Response(status=200 if answer.ok else 503, text=text)

    return [web.get("/livez", probe), web.get("/readyz", probe)]


async def hide_server(request: web.Request, response: web.StreamResponse) -> None:
    """Takes out the header that names our interpreter and library with their versions."""
    response.headers.popall("Server", None)


@web.middleware
async def _answer(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    response: web.StreamResponse
    try:
        response = await handler(request)
    except web.HTTPException as exc:
        response = web.Response(status=exc.status, text=f"{exc.reason}\n")
        if "Allow" in exc.headers:
            response.headers["Allow"] = exc.headers["Allow"]
    except Exception:
        log.exception("a status page failed", extra={"page": request.path})
        response = web.Response(status=500, text="failed\n")
    response.headers["Cache-Control"] = "no-store"
    response.force_close()
    return response
