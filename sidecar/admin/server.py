"""The operator's door: a small JSON API on a Unix socket, for root, the own user and the admin group.

These callers may read and do what cannot widen access (reload, drain). Orders (grants, revocations, reviews)
are judged by their signatures alone, whoever hands them in.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from sidecar.admin.address import open_address
from sidecar.admin.gate import Gate
from sidecar.admin.health import Health, Probe
from sidecar.admin.pace import Pace, TooBusyError
from sidecar.admin.peercred import PeerCred, is_operator, read_peercred
from sidecar.admin.status import health_routes, hide_server
from sidecar.errors import (
    AuditUnavailable,
    ConfigurationError,
    OrderRefused,
    ProblemsError,
    SidecarError,
    StateError,
    UnavailableError,
)

log = logging.getLogger(__name__)

CONNECTION_LIMIT = 64
LONGEST_BODY_BYTES = 64 << 10  # an order has 16 KiB at most and is refused by its own rules above that
PEER = web.RequestKey("peer", PeerCred)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminOperations(Protocol):
    """What the socket can ask of the sidecar. Answers are made of JSON's types and hold no secret."""

    def status(self) -> dict[str, Any]: ...

    def grants(self) -> list[dict[str, Any]]: ...

    def explain(self, question: bytes) -> dict[str, Any]:
        """What would become of a call now. Raises ConfigurationError when ``question`` is none."""
        ...

    async def submit_order(self, data: bytes, peer: PeerCred) -> dict[str, Any]:
        """Judges a signed order; durable when it returns. Raises OrderRefused."""
        ...

    async def reload(self, peer: PeerCred) -> dict[str, Any]:
        """Reads policy and signers anew. Raises ConfigurationError; what was in force then stays so."""
        ...

    async def drain(self, peer: PeerCred) -> dict[str, Any]:
        """Begins to drain and returns without waiting for its end."""
        ...

    def health(self, kind: Probe) -> Health: ...


class AdminServer:
    """The API's server. ``path`` is made 0600, or 0660 with ``group``, and removed when it is closed."""

    def __init__(
        self, path: Path, group: int | None, operations: AdminOperations, pace: Pace | None = None
    ) -> None:
        self._path = path
        self._group = group
        self._operations = operations
        self._pace = pace or Pace()
        self._peers: dict[RequestHandler, PeerCred] = {}
        self._inode: tuple[int, int] | None = None
        self._server: asyncio.Server | None = None
        application = web.Application(middlewares=[self._guard], client_max_size=LONGEST_BODY_BYTES)
        application.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/grants", self._grants),
                web.post("/v1/explain", self._explain),
                web.post("/v1/orders", self._orders),
                web.post("/v1/reload", self._reload),
                web.post("/v1/drain", self._drain),
                *health_routes(operations.health),
            ]
        )
        application.on_response_prepare.append(hide_server)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    async def start(self) -> None:
        """Listens. Raises :class:`StateError` when the path is taken or cannot be made."""
        link = _bind(self._path, self._group)
        status = os.lstat(self._path)
        self._inode = (status.st_dev, status.st_ino)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        gate = Gate(server, limit=CONNECTION_LIMIT, admit=self._admit, left=self._leave)
        self._server = await asyncio.get_running_loop().create_unix_server(gate, sock=link)

    async def close(self) -> None:
        """Stops listening, ends what is open, removes the socket. Harmless when repeated or not started."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self._runner.cleanup()
        inode, self._inode = self._inode, None
        try:
            status = os.lstat(self._path)
            if (status.st_dev, status.st_ino) == inode:  # not another one's that took the place since
                os.unlink(self._path)
        except FileNotFoundError:
            pass

    def _admit(self, transport: asyncio.Transport, handler: RequestHandler) -> bool:
        try:
            peer = read_peercred(transport.get_extra_info("socket"))
        except OSError as exc:
            log.warning(
                "admin peer refused: the kernel does not say who it is", extra={"error": exc.strerror}
            )
            return False
        if not is_operator(peer, os.geteuid(), self._group):
            log.warning("admin peer refused", extra={"pid": peer.pid, "uid": peer.uid, "gid": peer.gid})
            return False
        self._peers[handler] = peer
        return True

    def _leave(self, handler: RequestHandler) -> None:
        self._peers.pop(handler, None)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every call passes here: who it is, pace, and the one translation from error to answer."""
        peer = self._peers.get(request.protocol)
        if peer is None:  # gone before its call was looked at
            return _problem(403, "peer", "the connection is closed")
        request[PEER] = peer
        try:
            if "Content-Encoding" in request.headers:
                return _problem(415, "encoding", "an order is sent as it is, without a content coding")
            # A flood of calls must not look like a dead sidecar
            if request.path not in ("/livez", "/readyz"):
                await self._pace.take()
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return _problem(413, "too-large", f"an order has at most {LONGEST_BODY_BYTES} bytes")
        except web.HTTPException as exc:
            return _problem(exc.status, "http", exc.reason.lower())
        except SidecarError as exc:
            return answer_error(exc)
        except Exception:
            log.exception("an admin call failed", extra={"path": request.path})
            return _problem(500, "internal", "the call failed; the service log says why")

    async def _status(self, request: web.Request) -> web.Response:
        return _json(self._operations.status())

    async def _grants(self, request: web.Request) -> web.Response:
        return _json(self._operations.grants())

    async def _explain(self, request: web.Request) -> web.Response:
        return _json(self._operations.explain(await request.read()))

    async def _orders(self, request: web.Request) -> web.Response:
        return _json(await self._operations.submit_order(await request.read(), request[PEER]))

    async def _reload(self, request: web.Request) -> web.Response:
        return _json(await self._operations.reload(request[PEER]))

    async def _drain(self, request: web.Request) -> web.Response:
        return _json(await self._operations.drain(request[PEER]))


def answer_error(error: SidecarError) -> web.Response:
    """The problem document of an operation's error; :mod:`sidecar.cli.admin_client` turns it back."""
    match error:
        case OrderRefused():
            return _problem(403, error.code, str(error))
        case ProblemsError():
            return _problem(422, "configuration", str(error), problems=list(error.problems))
        case ConfigurationError():
            return _problem(422, "configuration", str(error))
        case TooBusyError():
            response = _problem(429, "busy", str(error))
            response.headers["Retry-After"] = str(error.retry_after_s)
            return response
        case AuditUnavailable():
            return _problem(503, "audit-unavailable", str(error))
        case UnavailableError():
            return _problem(503, "unavailable", str(error))
        case _:
            return _problem(500, "failed", str(error))


def _bind(path: Path, group: int | None) -> socket.socket:
    """A socket that listens at ``path``; nobody but its owner (and ``group``) could connect at any moment."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.setblocking(False)
        with open_address(path) as address:
            _remove_stale(path, address)
            # Linux makes the file with the socket's own mode; a chmod after bind would leave a gap.
            os.fchmod(link.fileno(), 0o600)
            link.bind(address)
        _open_to_group(path, group)
        link.listen(CONNECTION_LIMIT)
    except OSError as exc:
        link.close()
        raise StateError(f"the admin socket {str(path)!r} cannot be made: {exc.strerror}") from exc
    except BaseException:
        link.close()
        raise
    return link


def _open_to_group(path: Path, group: int | None) -> None:
    if group is None:
        return
    try:
        os.chown(path, -1, group)
        os.chmod(path, 0o660)
    except OSError:
        os.unlink(path)
        raise


def _remove_stale(path: Path, address: str) -> None:
    """Removes a socket that nobody serves. Raises :class:`StateError` for anything else in its place."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_socket():
        raise StateError(f"{str(path)!r} is in the admin socket's place and is no socket; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
        attempt.setblocking(False)
        try:
            attempt.connect(address)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise StateError(f"another process serves the admin socket {str(path)!r}")


def _json(document: object) -> web.Response:
    return web.Response(text=json.dumps(document), content_type="application/json")


def _problem(status: int, reason: str, detail: str, **members: object) -> web.Response:
    document = {"status": status, "reason": reason, "detail": detail, **members}
    return web.Response(status=status, text=json.dumps(document), content_type="application/problem+json")
