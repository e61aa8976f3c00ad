"""The local service of the benchmark: answers every request with the same bytes, as fast as Python can.

Run as ``python -m tests.bench.service PORT``.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

BODY = (b'{"order":{"id":42,"item":"lamp","quantity":1},"padding":"' + b"x" * 700)[:610] + b'"}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"date: Tue, 24 Nov 2026 12:00:00 GMT\r\nserver: bench\r\n\r\n" % len(BODY)
) + BODY


class Service(asyncio.Protocol):
    """One connection; requests have no body, so that one ends where the next begins."""

    def __init__(self) -> None:
        self._kept = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._kept + data
        count = data.count(b"\r\n\r\n")
        self._kept = data[data.rfind(b"\r\n\r\n") + 4 :] if count else data
        if count:
            self._transport.write(ANSWER * count)  # type: ignore[attr-defined]


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
