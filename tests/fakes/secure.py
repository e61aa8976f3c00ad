"""Both ends of a secured connection: a protocol that remembers, a server on port 0, a caller in a thread."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from sidecar.identity.peer import Peer
from sidecar.identity.svid import Snapshot
from sidecar.metrics import SidecarMetrics
from sidecar.tls.acceptor import Acceptor, Handshake
from sidecar.tls.context import ServerContext, build_server_context
from sidecar.tls.refusal import Refusal
from sidecar.tls.transport import TlsTransport
from tests.fakes.certificates import DemoAuthority, Issued
from tests.fakes.clock import FakeClock

CALLER_TIMEOUT_S = 10.0


class Recorder:
    """A protocol above TLS that writes down what happens to it; hooks say what it does then."""

    def __init__(
        self,
        on_data: Callable[[Recorder, bytes], None] = lambda recorder, data: None,
        on_secured: Callable[[Recorder], None] = lambda recorder: None,
        on_eof: Callable[[Recorder], None] = lambda recorder: recorder.transport.close(),
    ) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.transport: TlsTransport
        self.peer: Peer
        self.lost_by: Exception | None = None
        self._on_data, self._on_secured, self._on_eof = on_data, on_secured, on_eof
        self._changed: list[asyncio.Future[None]] = []

    def connection_secured(self, transport: TlsTransport, peer: Peer) -> None:
        self.transport, self.peer = transport, peer
        self._note("secured")
        self._on_secured(self)

    def data_received(self, data: bytes) -> None:
        assert data, "empty data"
        self.data += data
        self._note("data")
        self._on_data(self, data)

    def eof_received(self) -> None:
        self._note("eof")
        self._on_eof(self)

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_by = exc
        self._note("lost")

    async def until(self, holds: Callable[[Recorder], object]) -> None:
        """Waits for an event after which ``holds`` is true."""
        while not holds(self):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._changed.append(future)
            await future

    async def until_event(self, name: str) -> None:
        await self.until(lambda recorder: name in recorder.events)

    def _note(self, event: str) -> None:
        if event != "data" or self.events[-1] != "data":
            self.events.append(event)
        changed, self._changed = self._changed, []
        for future in changed:
            if not future.done():
                future.set_result(None)


def echo(recorder: Recorder, data: bytes) -> None:
    recorder.transport.write(data)


class RawTransport:
    """A raw transport in memory."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unsent = 0
        self.protocol: object = None
        self.is_reading = True
        self.is_closed = self.is_aborted = self.has_ended = False

    def write(self, data: bytes) -> None:
        assert not self.has_ended, "a write after FIN"
        self.written.append(data)

    def write_eof(self) -> None:
        self.has_ended = True

    def pause_reading(self) -> None:
        assert self.is_reading, "paused twice"
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_reading, "resumed twice"
        self.is_reading = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert high > low

    def set_protocol(self, protocol: object) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str) -> object:
        return ("10.0.4.7", 4711) if name == "peername" else None


@dataclass
class Counts:
    """The acceptor's watch."""

    settled: int = 0
    closed: int = 0
    handshakes: list[Handshake] = field(default_factory=list)
    _empty: asyncio.Event = field(default_factory=asyncio.Event)

    def handshake_settled(self, handshake: Handshake) -> None:
        self.settled += 1

    def connection_closed(self) -> None:
        self.closed += 1
        if self.closed == len(self.handshakes):
            self._empty.set()

    def accepted(self, handshake: Handshake) -> Handshake:
        self.handshakes.append(handshake)
        self._empty.clear()
        return handshake

    async def until_all_closed(self) -> None:
        await self._empty.wait()


class Served:
    """An acceptor behind a real socket on port 0."""

    def __init__(
        self, context: Callable[[], ServerContext], make: Callable[[], Recorder], timeout_s: float
    ) -> None:
        self.protocols: list[Recorder] = []
        self.refusals: list[Refusal] = []
        self.metrics = SidecarMetrics()
        self.counts = Counts()
        self._make = make
        self.acceptor = Acceptor(context, self._made, self.refusals.append, timeout_s, self.metrics)
        self.port = 0

    def _made(self) -> Recorder:
        self.protocols.append(self._make())
        return self.protocols[-1]

    @property
    def protocol(self) -> Recorder:
        return self.protocols[-1]

    async def secured(self) -> Recorder:
        """The first protocol, once there is one."""
        while not (self.protocols and self.protocols[0].events):
            await asyncio.sleep(0.001)
        return self.protocols[0]

    def handshakes(self, result: str, reason: str = "") -> int:
        return self.metrics.handshakes.labels("inbound", result, reason).value

    def limit(self, name: str) -> int:
        return self.metrics.limits.labels(name).value


@asynccontextmanager
async def serve(
    context: Callable[[], ServerContext], make: Callable[[], Recorder] = Recorder, timeout_s: float = 10.0
) -> AsyncIterator[Served]:
    served = Served(context, make, timeout_s)
    server = await asyncio.get_running_loop().create_server(
        lambda: served.counts.accepted(served.acceptor.accept(served.counts)), "127.0.0.1", 0
    )
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for handshake in served.counts.handshakes:
            handshake.cancel()
        for protocol in served.protocols:
            if "secured" in protocol.events and "lost" not in protocol.events:
                protocol.transport.abort()
        if served.counts.handshakes:
            await served.counts.until_all_closed()


class World:
    """One trust domain with a service and callers, as a clock that stands still sees it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.authority = DemoAuthority()
        self.own = self.authority.issue("spiffe://demo.test/orders")
        self.web = self.authority.issue("spiffe://demo.test/web")

    def snapshot(self, **changes: Any) -> Snapshot:
        values = {"generation": 7, "svid": self.own.svid, "bundles": self.authority.bundles(), **changes}
        return Snapshot(**values)

    def context(self, **changes: Any) -> Callable[[], ServerContext]:
        context = build_server_context(self.snapshot(**changes), self.clock)
        return lambda: context


@contextmanager
def pem_file(issued: Issued) -> Iterator[str]:
    """The name of a file with chain and key."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(issued.chain_pem + issued.key_pem)
        file.flush()
        yield file.name


def caller_context(issued: Issued | None, alpn: list[str] | None = None) -> ssl.SSLContext:
    """For a caller with this certificate, which takes any server's (its clock is the real one)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if issued is not None:
        with pem_file(issued) as name:
            context.load_cert_chain(name)
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    return context


def connect(port: int, context: ssl.SSLContext, **more: Any) -> ssl.SSLSocket:
    """A caller's blocking connection; to be used in a thread."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=CALLER_TIMEOUT_S)
    try:
        return context.wrap_socket(raw, suppress_ragged_eofs=False, **more)
    except BaseException:
        raw.close()
        raise


class BioCaller:
    """A caller that sees each byte: TLS in memory, and a blocking socket of its own. For a thread."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.raw = socket.create_connection(("127.0.0.1", port), timeout=CALLER_TIMEOUT_S)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)

    def shake_hands(self) -> None:
        """Up to the point where this side has finished; its last flight is not sent yet."""
        self._step(self.tls.do_handshake)

    def send(self, data: bytes = b"") -> None:
        """Sends what has been left unsent, and ``data``, in one piece."""
        if data:
            self.tls.write(data)
        if self.outgoing.pending:
            self.raw.sendall(self.outgoing.read())

    def end(self) -> None:
        """Sends close_notify and stays open for reading."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.send()

    def read(self) -> bytes:
        """The next bytes. SSLZeroReturnError after close_notify, SSLEOFError after a bare FIN."""
        data: bytes = self._step(lambda: self.tls.read(65536))
        return data

    def close(self) -> None:
        self.raw.close()

    def _step(self, action: Callable[[], Any]) -> Any:
        while True:
            try:
                return action()
            except ssl.SSLWantReadError:
                self.send()
                data = self.raw.recv(65536)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()

    def __enter__(self) -> BioCaller:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_exactly(link: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = link.recv(count - len(data))
        assert more, f"the end after {len(data)} of {count} bytes"
        data += more
    return bytes(data)


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)
