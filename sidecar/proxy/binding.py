"""Listening sockets for one address, or an error that says what to do."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Final

from sidecar.errors import ConfigurationError, SidecarError, UnavailableError

BACKLOG: Final = 1024
KEEPALIVE_IDLE_S: Final = 30
KEEPALIVE_INTERVAL_S: Final = 10
KEEPALIVE_PROBES: Final = 3


async def bind_listeners(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on every address of ``host`` and on ``port``; the kernel's choice for 0, one for all of them.

    ``::`` takes IPv4 too. Raises :class:`ConfigurationError` for an address that this machine cannot listen
    on, and :class:`UnavailableError` for one that is taken; then nothing stays open.
    """
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    listeners: list[socket.socket] = []
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            if listeners and port == 0:
                address = (address[0], listeners[0].getsockname()[1], *address[2:])
            listeners.append(_listen(family, address, is_dual=host == "::"))
    except OSError as exc:
        for each in listeners:
            each.close()
        raise _explain(name, exc) from exc
    return listeners


def _listen(family: int, address: tuple[object, ...], *, is_dual: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not is_dual))
        # Accepted sockets inherit these. Keep-alive finds the peer whose cable was pulled.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _explain(name: str, exc: OSError) -> SidecarError:
    reason = exc.strerror or str(exc)
    if exc.errno == errno.EADDRINUSE:
        return UnavailableError(
            f"cannot listen on {name}: something else does; stop it or set SIDECAR_LISTEN"
        )
    if isinstance(exc, socket.gaierror) or exc.errno == errno.EADDRNOTAVAIL:
        return ConfigurationError(
            f"cannot listen on {name}: this machine has no such address; set SIDECAR_LISTEN"
        )
    if exc.errno in (errno.EACCES, errno.EPERM):
        return ConfigurationError(
            f"cannot listen on {name}: not permitted; set SIDECAR_LISTEN to a port from 1024, "
            "or give the process CAP_NET_BIND_SERVICE"
        )
    return UnavailableError(f"cannot listen on {name}: {reason.lower()}")
