from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest

from sidecar.errors import ConfigurationError, UnavailableError
from sidecar.proxy import binding
from sidecar.proxy.binding import bind_listeners
from tests.fakes.loops import both_loops, run_on


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def bind(host: str, port: int = 0, factory=asyncio.new_event_loop) -> list[socket.socket]:
    return run_on(factory, bind_listeners(host, port))


def close(listeners: list[socket.socket]) -> None:
    for each in listeners:
        each.close()


@both_loops
def test_it_listens_and_what_is_accepted_inherits_what_a_connection_needs(factory):
    listeners = bind("127.0.0.1", 0, factory)
    [listener] = listeners
    try:
        assert listener.getblocking() is False
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        with socket.create_connection(listener.getsockname()):
            link, _ = listener.accept()
            with link:
                assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    finally:
        close(listeners)


def test_localhost_is_one_port_on_all_its_addresses():
    listeners = bind("localhost")
    try:
        assert len({each.getsockname()[1] for each in listeners}) == 1
        assert {each.getsockname()[0] for each in listeners} <= {"127.0.0.1", "::1"}
    finally:
        close(listeners)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize(("host", "takes_ipv4"), [("::", True), ("::1", False)])
def test_the_ipv6_wildcard_takes_ipv4_too(host, takes_ipv4):
    listeners = bind(host)
    try:
        port = listeners[0].getsockname()[1]
        with socket.create_connection(("::1", port), timeout=5):
            pass
        if takes_ipv4:
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                pass
        else:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
    finally:
        close(listeners)


def test_a_port_that_is_taken_may_be_free_later():
    listeners = bind("127.0.0.1")
    port = listeners[0].getsockname()[1]
    try:
        with pytest.raises(
            UnavailableError, match=rf"127\.0\.0\.1:{port}: something else does.*SIDECAR_LISTEN"
        ):
            bind("127.0.0.1", port)
    finally:
        close(listeners)


def test_an_address_of_another_machine_is_a_mistake():
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1:8443: this machine has no such address"):
        bind("192.0.2.1", 8443)


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.EACCES, ConfigurationError, r"\[::1\]:443: not permitted; .*CAP_NET_BIND_SERVICE"),
        (errno.EPERM, ConfigurationError, "not permitted"),
        (errno.EADDRNOTAVAIL, ConfigurationError, "no such address"),
        (errno.EADDRINUSE, UnavailableError, "something else does"),
        (errno.EMFILE, UnavailableError, "too many open files"),
    ],
)
def test_each_failure_says_what_to_do(monkeypatch, number, kind, text):
    def fail(*arguments: object, **more: object) -> socket.socket:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(binding, "_listen", fail)
    with pytest.raises(kind, match=text):
        bind("::1", 443)


async def two_addresses(host, port, **more):
    return [(socket.AF_INET, 1, 6, "", (address, port)) for address in ("127.0.0.1", "127.0.0.2")]


async def bind_two(monkeypatch) -> list[socket.socket]:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two_addresses)
    return await bind_listeners("localhost", 0)


def test_the_port_that_the_kernel_chose_is_one_for_all_addresses(monkeypatch):
    first, second = listeners = run_on(asyncio.new_event_loop, bind_two(monkeypatch))
    try:
        assert first.getsockname()[0] == "127.0.0.1" and second.getsockname()[0] == "127.0.0.2"
        assert first.getsockname()[1] == second.getsockname()[1] != 0
    finally:
        close(listeners)


def test_when_one_address_fails_none_stays_open(monkeypatch):
    listen, made = binding._listen, []

    def listen_once(*arguments, **more):
        if made:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        made.append(listen(*arguments, **more))
        return made[0]

    monkeypatch.setattr(binding, "_listen", listen_once)
    with pytest.raises(UnavailableError):
        run_on(asyncio.new_event_loop, bind_two(monkeypatch))
    assert made[0].fileno() == -1
