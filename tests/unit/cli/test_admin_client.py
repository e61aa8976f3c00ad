from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager

import pytest

from sidecar.cli.admin_client import admin_call, admin_exchange, admin_request
from sidecar.errors import ConfigurationError, OrderRefused, ProblemsError, SidecarError, UnavailableError

ORDER = bytes(range(256))


def whole_request(link: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n") if b"Content-Length" not in data else not data.endswith(ORDER):
        data += link.recv(65536)
    return data


@contextmanager
def sidecar(tmp_path, answer: bytes):
    """Takes one connection at the admin socket, says ``answer`` and closes. Yields (environ, heard)."""
    heard: list[bytes] = []
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "admin.sock"))
    server.listen()
    server.settimeout(10)

    def serve() -> None:
        link, _ = server.accept()
        with link:
            if answer:
                heard.append(whole_request(link))
                link.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield {"SIDECAR_STATE_DIR": str(tmp_path)}, heard
    finally:
        thread.join()
        server.close()


def http(status: int, body: object, kind: str = "application/json") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (
        status, kind.encode(), len(data), data,
    )  # fmt: skip


def test_nobody_there(tmp_path):
    with pytest.raises(UnavailableError, match=r"no sidecar answers at .*admin\.sock"):
        admin_request("GET", "/v1/status", environ={"SIDECAR_STATE_DIR": str(tmp_path)})


def test_a_socket_that_nobody_serves(tmp_path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "admin.sock"))
    with pytest.raises(UnavailableError, match="no sidecar answers"):
        admin_request("GET", "/v1/status", environ={"SIDECAR_STATE_DIR": str(tmp_path)})


def test_a_place_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigurationError, match="SIDECAR_ADMIN"):
        admin_request("GET", "/v1/status", environ={"SIDECAR_ADMIN": "127.0.0.1:9901"})


def test_cut_off_without_an_answer_means_not_let_in(tmp_path):
    with (
        sidecar(tmp_path, b"") as (environ, _),
        pytest.raises(UnavailableError, match=r"does not let uid [0-9]+ in"),
    ):
        admin_request("GET", "/v1/status", environ=environ)


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"])
def test_what_speaks_something_else(tmp_path, answer):
    with sidecar(tmp_path, answer) as (environ, _), pytest.raises(UnavailableError):
        admin_request("GET", "/v1/status", environ=environ)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000])
def test_what_is_no_json(tmp_path, body):
    with sidecar(tmp_path, http(200, body)) as (environ, _), pytest.raises(UnavailableError, match="no JSON"):
        admin_request("GET", "/v1/status", environ=environ)


def test_silence_has_an_end(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "admin.sock"))
        server.listen()
        with pytest.raises(UnavailableError, match=r"no answer within 0\.05 s"):
            admin_request("GET", "/v1/status", environ={"SIDECAR_STATE_DIR": str(tmp_path)}, timeout_s=0.05)


REFUSALS = [
    (403, {"reason": "expired", "detail": "the grant is over"}, OrderRefused, "the grant is over"),
    (403, {}, OrderRefused, "the sidecar gave no reason"),
    (403, [], OrderRefused, "the sidecar gave no reason"),
    (422, {"detail": "two", "problems": ["p:1:1: a", "p:2:1: b"]}, ProblemsError, "p:1:1: a; p:2:1: b"),
    (422, {"detail": "no policy"}, ConfigurationError, "no policy"),
    (429, {"detail": "too many"}, UnavailableError, "too many"),
    (503, {"detail": "no log"}, UnavailableError, "no log"),
    (500, {"detail": "odd"}, SidecarError, "odd"),
    (301, {"detail": "elsewhere"}, SidecarError, "elsewhere"),
]


@pytest.mark.parametrize(("status", "body", "error", "text"), REFUSALS)
def test_a_refused_call_raises_what_its_exit_code_asks_for(tmp_path, status, body, error, text):
    with sidecar(tmp_path, http(status, body)) as (environ, _), pytest.raises(error) as refusal:
        admin_call("POST", "/v1/orders", ORDER, environ=environ)
    assert type(refusal.value) is error and str(refusal.value) == text


def test_the_refusal_keeps_its_code(tmp_path):
    answer = http(403, {"reason": "bad-signature", "detail": "x"})
    with sidecar(tmp_path, answer) as (environ, _), pytest.raises(OrderRefused) as refusal:
        admin_call("POST", "/v1/orders", ORDER, environ=environ)
    assert refusal.value.code == "bad-signature"


def test_an_order_arrives_byte_for_byte(tmp_path):
    with sidecar(tmp_path, http(200, {"id": "a"})) as (environ, heard):
        assert admin_request("POST", "/v1/orders", ORDER, environ=environ) == (200, {"id": "a"})
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/orders HTTP/1.1\r\n") and b"application/octet-stream" in head
    assert body == ORDER


def test_text_comes_back_as_it_is(tmp_path):
    with sidecar(tmp_path, http(503, b"not ready\n", "text/plain; charset=utf-8")) as (environ, _):
        answer = admin_exchange("GET", "/readyz", environ=environ)
    assert (answer.status, answer.content_type, answer.body) == (503, "text/plain", b"not ready\n")
