"""The example service and the example caller, each as a process of its own over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.demo_world import World, accepts, find_example, free_ports, open_world
from sidecar.clock import SYSTEM_CLOCK

pytestmark = pytest.mark.integration

SERVICE = find_example() / "service.py"
XFCC = "By=spiffe://demo.test/orders;Hash=468ed3;URI=spiffe://demo.test/web"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, as the sidecar speaks it to the service."""

    def __init__(self, path: Path) -> None:
        super().__init__("orders", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, body: Any = None, xfcc: str | None = None) -> tuple[int, Any]:
    """Status of one call, and its body: parsed if it is JSON, else as text."""
    connection = UnixConnection(path)
    try:
        headers = {} if xfcc is None else {"x-forwarded-client-cert": xfcc}
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, target, body=raw, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(text) if is_json else text
    finally:
        connection.close()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with open_world(SYSTEM_CLOCK, None) as world:
        yield world


@pytest.fixture(scope="module")
def service(world: World) -> Path:
    """The socket of a running service. Module-wide: no test here rests on what another one left in it."""
    path = world.directory / "orders.sock"
    started = world.start("orders", [sys.executable, SERVICE, "--listen", f"unix:{path}"])
    world.wait_for("the service answers", lambda: accepts(path), started)
    return path


def test_the_socket_is_closed_to_everybody_but_owner_and_group(service: Path) -> None:
    assert service.stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("GET", "/orders/99999", None, 404),
        ("DELETE", "/orders/99999", None, 404),
        ("GET", "/orders/" + "9" * 40, None, 404),
        ("GET", "/orders/-1", None, 404),
        ("PUT", "/orders/42", {}, 405),
        ("POST", "/orders", b"{", 400),
        ("POST", "/orders", b"\xff", 400),
        ("POST", "/orders", [], 422),
        ("POST", "/orders", {"item": ""}, 422),
        ("POST", "/orders", {"item": "x" * 201}, 422),
        ("POST", "/orders", {"item": "pen", "quantity": 0}, 422),
        ("POST", "/orders", {"item": "pen", "quantity": True}, 422),
        ("POST", "/orders", {"item": "pen", "quantity": "2"}, 422),
    ],
)
def test_bad_requests_are_refused(service: Path, method: str, target: str, body: Any, status: int) -> None:
    assert ask(service, method, target, body)[0] == status


def test_an_order_can_be_made_read_listed_and_deleted(service: Path) -> None:
    status, made = ask(service, "POST", "/orders", {"item": "pen'; DROP TABLE orders; --", "quantity": 3})
    assert status == 201
    order = made["order"]
    target = f"/orders/{order['id']}"
    assert ask(service, "GET", target) == (200, {"order": order, "caller": None})
    assert order in ask(service, "GET", "/orders")[1]["orders"]
    assert ask(service, "DELETE", target) == (200, {"deleted": order, "caller": None})
    assert ask(service, "GET", target)[0] == 404


def test_order_42_is_there_from_the_start(service: Path) -> None:
    assert ask(service, "GET", "/orders/42")[1]["order"]["id"] == 42


def test_the_caller_is_the_one_whom_the_sidecar_names(service: Path) -> None:
    assert ask(service, "GET", "/orders/42", xfcc=XFCC)[1]["caller"] == "spiffe://demo.test/web"


def test_health_is_plain(service: Path) -> None:
    assert ask(service, "GET", "/healthz") == (200, "ok\n")


def test_it_serves_a_port_too_and_keeps_a_database(world: World) -> None:
    database = world.directory / "orders.db"
    for expected in (200, 404):  # the second process finds the order gone that the first one deleted
        port = free_ports(1)[0]
        started = world.start(
            f"orders-{port}",
            [sys.executable, SERVICE, "--listen", f"127.0.0.1:{port}", "--database", database],
        )
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

        def answers(port: int = port) -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        world.wait_for("the service answers", answers, started)
        connection.request("DELETE", "/orders/42")
        assert connection.getresponse().status == expected
        connection.close()
        started.process.terminate()
        assert started.process.wait(10) == 0


@pytest.mark.parametrize("listen", ["8080", "127.0.0.1:", "127.0.0.1:http", ""])
def test_a_bad_address_is_a_usage_error(world: World, listen: str) -> None:
    ran = world.run([sys.executable, SERVICE, "--listen", listen])
    assert ran.exit_code == 2
    assert "--listen" in ran.stderr
