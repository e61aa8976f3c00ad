from __future__ import annotations

import asyncio
import http.client
import logging
import socket

import pytest

from sidecar.admin import status as status_module
from sidecar.admin.health import Check, Health
from sidecar.admin.status import StatusServer
from sidecar.errors import UnavailableError
from tests.fakes.loops import both_loops, run_on


class Page:
    """Health and metrics that a test sets."""

    ready = Health((Check("policy", True),))
    metrics = b"sidecar_x 1\n"

    def health(self, kind: str) -> Health:
        return self.ready if kind == "readyz" else Health((Check("loop", True),))

    def render(self) -> bytes:
        if not self.metrics:
            raise ZeroDivisionError("canary-7f3a")
        return self.metrics


def ask(port: int, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def with_server(factory, page: Page, story):
    async def play():
        server = StatusServer("127.0.0.1", 0, page.health, page.render)
        await server.start()
        try:
            return await story(server)
        finally:
            await server.close()
            await server.close()

    return run_on(factory, play())


@both_loops
@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/livez", 200), ("HEAD", "/livez", 200), ("GET", "/readyz", 503),
        ("GET", "/readyz?verbose", 503),
        ("GET", "/metrics", 200), ("POST", "/livez", 405), ("DELETE", "/metrics", 405),
        ("POST", "/quitquitquit", 404), ("GET", "/", 404),
        ("GET", "/v1/status", 404), ("GET", "/livez/", 404), ("TRACE", "/livez", 405),
    ],
)  # fmt: skip
def test_what_the_port_answers(factory, method, path, code):
    page = Page()
    page.ready = Health((Check("policy", False, "none loaded"),))

    async def story(server: StatusServer):
        return await asyncio.to_thread(ask, server.port, method, path)

    status, headers, body = with_server(factory, page, story)
    assert status == code
    assert (
        "server" not in headers
        and headers["connection"] == "close"
        and headers["cache-control"] == "no-store"
    )
    if "verbose" in path:
        assert body == b"[-]policy failed: none loaded\nreadyz failed\n"
    if method == "HEAD":
        assert body == b""


@both_loops
def test_metrics_have_their_type(factory):
    async def story(server: StatusServer):
        return await asyncio.to_thread(ask, server.port, "GET", "/metrics")

    _, headers, body = with_server(factory, Page(), story)
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert body == b"sidecar_x 1\n"


def test_a_page_that_fails_says_nothing_outside(caplog):
    page = Page()
    page.metrics = b""

    async def story(server: StatusServer):
        return await asyncio.to_thread(ask, server.port, "GET", "/metrics")

    status, _, body = with_server(asyncio.new_event_loop, page, story)
    assert (status, body) == (500, b"failed\n")
    assert "a status page failed" in caplog.text and caplog.records[-1].levelno == logging.ERROR


@both_loops
def test_idle_strangers_cannot_keep_a_probe_out(factory, monkeypatch):
    monkeypatch.setattr(status_module, "CONNECTION_LIMIT", 3)
    monkeypatch.setattr(status_module, "CONNECTION_LIFE_S", 60.0)

    async def story(server: StatusServer):
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(5)]
        status, _, _ = await asyncio.to_thread(ask, server.port, "GET", "/livez")
        for reader, _ in idle[:2]:  # the oldest two made room for the last two
            try:
                assert await asyncio.wait_for(reader.read(), 5) == b""
            except ConnectionResetError:
                pass
        for _, writer in idle:
            writer.close()
        return status

    assert with_server(factory, Page(), story) == 200


@both_loops
def test_whoever_dawdles_is_cut_off(factory, monkeypatch):
    monkeypatch.setattr(status_module, "CONNECTION_LIFE_S", 0.05)

    async def story(server: StatusServer):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        try:
            return await asyncio.wait_for(reader.read(), 5)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    assert with_server(factory, Page(), story) == b""


def test_bad_bytes_get_an_answer_and_no_page_of_log(caplog):
    caplog.set_level(logging.CRITICAL, "aiohttp.server")

    async def story(server: StatusServer):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"\x16\x03\x01\x00\xa5\x01\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer

    assert with_server(asyncio.new_event_loop, Page(), story).startswith(b"HTTP/1.0 400")


def test_a_taken_port_is_an_error_and_leaves_nothing_open():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        async def story() -> None:
            server = StatusServer("127.0.0.1", taken.getsockname()[1], Page().health, Page().render)
            with pytest.raises(UnavailableError, match="status port"):
                await server.start()
            await server.close()

        run_on(asyncio.new_event_loop, story())
