"""One upstream connection between its transport and the call that holds it."""

from __future__ import annotations

from sidecar.proxy.upstream_connection import UpstreamConnection
from tests.fakes.transports import FakeTransport


class Home:
    def __init__(self) -> None:
        self.events: list[str] = []

    def take_back(self, connection: UpstreamConnection) -> None:
        self.events.append("back")

    def forget(self, connection: UpstreamConnection) -> None:
        self.events.append("forgotten")


class User:
    def __init__(self) -> None:
        self.events: list[object] = []

    def upstream_ready(self, connection: UpstreamConnection) -> None: ...
    def upstream_refused(self, error: Exception) -> None: ...

    def upstream_data(self, data: bytes) -> None:
        self.events.append(data)

    def upstream_lost(self, exc: Exception | None) -> None:
        self.events.append(exc)

    def upstream_writable(self, writable: bool) -> None:
        self.events.append(writable)


def make() -> tuple[UpstreamConnection, FakeTransport, Home, User]:
    home, user = Home(), User()
    connection = UpstreamConnection(home, 65536)
    link = FakeTransport(connection)
    connection.connection_made(link)  # type: ignore[arg-type]
    connection.user = user
    return connection, link, home, user


def test_bytes_and_pressure_reach_the_call_that_holds_it():
    connection, link, _, user = make()
    link.feed(b"x")
    link.is_stuck = True
    connection.write(b"y" * 65537)
    link.flush()
    assert user.events == [b"x", False, True]


def test_a_connection_that_was_paused_reads_again_when_it_is_given_back():
    connection, link, home, _ = make()
    connection.pause_reading()
    connection.pause_reading()
    assert link.is_paused
    connection.release(1000.0)
    assert not link.is_paused
    assert home.events == ["back"]


def test_the_end_is_told_once_and_the_transport_let_go():
    connection, link, home, user = make()
    link.feed_end()
    link.lose(ConnectionResetError())
    assert user.events == [None]
    assert home.events == ["forgotten"]
    assert link.is_aborted
    connection.write(b"dropped")
    assert link.take() == b""


def test_a_reset_is_told_as_one():
    _, link, _, user = make()
    error = ConnectionResetError()
    link.lose(error)
    assert user.events == [error]


def test_after_it_was_thrown_away_nothing_reaches_the_call():
    connection, link, home, user = make()
    connection.discard()
    connection.discard()
    connection.data_received(b"late")
    connection.pause_reading()
    connection.resume_reading()
    connection.release(1000.0)
    link.lose(None)
    assert user.events == []
    assert home.events == ["forgotten"]
    assert not link.is_paused
