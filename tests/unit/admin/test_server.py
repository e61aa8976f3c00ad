from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sidecar.admin import server as server_module
from sidecar.admin.health import Check, Health
from sidecar.admin.pace import Pace
from sidecar.admin.peercred import PeerCred
from sidecar.admin.server import LONGEST_BODY_BYTES, AdminServer
from sidecar.cli.admin_client import Answer, admin_call, admin_exchange, admin_request
from sidecar.errors import (
    AuditUnavailable,
    ConfigurationError,
    OrderRefused,
    PolicyError,
    ProblemsError,
    SidecarError,
    StateError,
    UnavailableError,
)
from tests.fakes.loops import both_loops, run_on


class Operations:
    """A sidecar that remembers what it was asked and fails as it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple[object, ...]] = []

    def _answer(self, *asked: object) -> dict[str, object]:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return {"done": asked[0]}

    def status(self) -> dict[str, object]:
        return self._answer("status")

    def grants(self) -> list[dict[str, object]]:
        return [self._answer("grants")]

    def explain(self, question: bytes) -> dict[str, object]:
        return self._answer("explain", question)

    async def submit_order(self, data: bytes, peer: PeerCred) -> dict[str, object]:
        return self._answer("order", data, peer)

    async def reload(self, peer: PeerCred) -> dict[str, object]:
        return self._answer("reload", peer)

    async def drain(self, peer: PeerCred) -> dict[str, object]:
        return self._answer("drain", peer)

    def health(self, kind: str) -> Health:
        return Health((Check("loop", kind == "livez", "not yet"),))


def serve(
    directory: Path, operations: Operations, story, factory=asyncio.new_event_loop, pace: Pace | None = None
):
    """Plays ``story(call)`` against a socket; ``call(function, *args)`` runs the client in a thread."""

    async def play():
        server = AdminServer(directory / "admin.sock", None, operations, pace)
        await server.start()
        environ = {"SIDECAR_STATE_DIR": str(directory)}

        async def call(function, *arguments):
            return await asyncio.to_thread(function, *arguments, environ=environ)

        try:
            return await story(call)
        finally:
            await server.close()
            await server.close()

    return run_on(factory, play())


def test_a_refused_peer_is_cut_off_before_anything_is_read(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(server_module, "read_peercred", lambda link: PeerCred(77, 4242, 4242))
    operations = Operations()

    async def story(call):
        with pytest.raises(UnavailableError, match="does not let uid"):
            await call(admin_request, "GET", "/v1/status")
        with pytest.raises(UnavailableError, match="does not let uid"):
            await call(admin_exchange, "GET", "/livez")

    serve(tmp_path, operations, story)
    assert operations.asked == []
    refusals = [record for record in caplog.records if record.message == "admin peer refused"]
    assert len(refusals) == 2 and (refusals[0].uid, refusals[0].pid) == (4242, 77)


def test_a_peer_that_the_kernel_does_not_know_is_refused(tmp_path, monkeypatch, caplog):
    def fail(link):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(server_module, "read_peercred", fail)

    async def story(call):
        with pytest.raises(UnavailableError):
            await call(admin_request, "GET", "/v1/status")

    serve(tmp_path, Operations(), story)
    assert "the kernel does not say" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("group", "uid", "groups", "let_in"),
    [(None, 4242, [4343], False), (4343, 4242, [4344], False), (4343, 4242, [4343], True)],
)
@both_loops
def test_another_user_needs_the_admin_group(factory, group, uid, groups, let_in):
    """A real process of another user, on a socket whose file mode would let anybody in."""
    directory = Path(tempfile.mkdtemp())
    script = (
        "import os, socket, sys\n"
        f"os.setgroups({groups!r}); os.setgid({uid}); os.setuid({uid})\n"
        "link = socket.socket(socket.AF_UNIX); link.connect(sys.argv[1])\n"
        "link.sendall(b'GET /livez HTTP/1.0\\r\\n\\r\\n')\n"
        "sys.stdout.buffer.write(link.recv(100))\n"
    )

    async def story():
        server = AdminServer(directory / "admin.sock", group, Operations())
        await server.start()
        os.chmod(directory, 0o755)
        os.chmod(directory / "admin.sock", 0o666)
        try:
            return await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", script, directory / "admin.sock"],
                capture_output=True,
                timeout=20,
            )
        finally:
            await server.close()

    try:
        done = run_on(factory, story())
    finally:
        shutil.rmtree(directory)
    assert done.stdout.startswith(b"HTTP/1.0 200") is let_in
    assert let_in or done.stdout == b""


@both_loops
def test_every_operation_arrives_with_its_peer(tmp_path, factory):
    operations = Operations()

    async def story(call):
        assert await call(admin_request, "GET", "/v1/status") == (200, {"done": "status"})
        assert await call(admin_request, "GET", "/v1/grants") == (200, [{"done": "grants"}])
        assert await call(admin_request, "POST", "/v1/explain", b"{}") == (200, {"done": "explain"})
        assert await call(admin_request, "POST", "/v1/orders", bytes(range(256))) == (200, {"done": "order"})
        assert await call(admin_request, "POST", "/v1/reload") == (200, {"done": "reload"})
        assert await call(admin_request, "POST", "/v1/drain", b"") == (200, {"done": "drain"})
        assert await call(admin_exchange, "GET", "/livez") == Answer(200, "text/plain", b"ok\n")
        assert await call(admin_exchange, "GET", "/readyz?verbose") == Answer(
            503, "text/plain", b"[-]loop failed: not yet\nreadyz failed\n"
        )

    serve(tmp_path, operations, story, factory)
    _, _, explain, order, reload, drain = operations.asked
    assert explain == ("explain", b"{}")
    assert order[1] == bytes(range(256))
    assert all(
        (asked[-1].pid, asked[-1].uid) == (os.getpid(), os.geteuid()) for asked in (order, reload, drain)
    )


ERRORS = [
    (OrderRefused("bad-signature", "the signature is wrong"), 403, "bad-signature", OrderRefused),
    (PolicyError(["p:1:1: a", "p:2:1: b"]), 422, "configuration", ProblemsError),
    (ConfigurationError("no signers"), 422, "configuration", ConfigurationError),
    (AuditUnavailable("the disk is full"), 503, "audit-unavailable", UnavailableError),
    (UnavailableError("later"), 503, "unavailable", UnavailableError),
    (StateError("the journal is damaged"), 500, "failed", SidecarError),
]


@pytest.mark.parametrize(("error", "status", "reason", "again"), ERRORS)
def test_an_error_crosses_the_socket_and_keeps_its_exit_code(tmp_path, error, status, reason, again):
    async def story(call):
        code, document = await call(admin_request, "POST", "/v1/orders", b"x")
        with pytest.raises(again) as raised:
            await call(admin_call, "POST", "/v1/orders", b"x")
        return code, document, raised.value

    code, document, raised = serve(tmp_path, Operations(error), story)
    assert (code, document["reason"], document["detail"]) == (status, reason, str(error))
    assert (str(raised), raised.exit_code) == (str(error), error.exit_code)
    assert document.get("problems") == (list(error.problems) if isinstance(error, ProblemsError) else None)


def test_an_unexpected_error_stays_inside(tmp_path, caplog):
    async def story(call):
        return await call(admin_request, "GET", "/v1/status")

    status, document = serve(tmp_path, Operations(ZeroDivisionError("canary-7f3a")), story)
    assert status == 500 and document["reason"] == "internal" and "canary" not in json.dumps(document)
    assert "canary-7f3a" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/status", 405), ("GET", "/v1/reload", 405), ("GET", "/v1/drain", 405),
        ("GET", "/v1/orders", 405), ("GET", "/v1/explain", 405),
        ("GET", "/", 404), ("GET", "/v1/status/", 404), ("DELETE", "/v1/grants", 405),
    ],
)  # fmt: skip
def test_reading_has_no_effect_and_what_is_not_there_is_not_there(tmp_path, method, path, status):
    operations = Operations()

    async def story(call):
        return await call(admin_request, method, path)

    code, document = serve(tmp_path, operations, story)
    assert (code, document["reason"]) == (status, "http") and operations.asked == []


@pytest.mark.parametrize(("extra", "status"), [(-1, 200), (0, 200), (1, 413)])
def test_the_longest_body(tmp_path, extra, status):
    operations = Operations()

    async def story(call):
        return await call(admin_request, "POST", "/v1/orders", bytes(LONGEST_BODY_BYTES + extra))

    code, document = serve(tmp_path, operations, story)
    assert code == status and bool(operations.asked) is (status == 200)
    assert status == 200 or document["reason"] == "too-large"


def test_a_body_in_a_content_coding_is_refused_and_not_unpacked(tmp_path):
    operations = Operations()

    async def story(call):
        return await asyncio.to_thread(speak, tmp_path / "admin.sock")

    head = serve(tmp_path, operations, story)
    assert head.startswith(b"HTTP/1.1 415 ")
    assert operations.asked == []


def speak(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        link.connect(str(path))
        link.sendall(
            b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n"
            b"Connection: close\r\n\r\nabc"
        )
        return link.recv(4096)


def test_a_flood_of_calls_is_paced_but_probes_get_through(tmp_path):
    async def story(call):
        first = await call(admin_request, "GET", "/v1/status")
        second = await call(admin_request, "GET", "/v1/status")
        probe = await call(admin_exchange, "GET", "/livez")
        return first, second, probe

    pace = Pace(rate=1, period_s=60, waiters=1, longest_wait_s=0.02)
    first, second, probe = serve(tmp_path, Operations(), story, pace=pace)
    assert first[0] == 200 and probe.status == 200
    assert (second[0], second[1]["reason"]) == (429, "busy")


def start_and_close(path: Path, group: int | None = None) -> int:
    """Serves ``path`` for a moment; the mode that the socket had."""

    async def story() -> int:
        server = AdminServer(path, group, Operations())
        try:
            await server.start()
            return path.lstat().st_mode
        finally:
            await server.close()

    return run_on(asyncio.new_event_loop, story())


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
@pytest.mark.parametrize(("group", "mode"), [(None, 0o600), (os.getegid(), 0o660)])
def test_the_mode_of_the_socket_whatever_the_umask(tmp_path, umask, group, mode):
    before = os.umask(umask)
    try:
        found = start_and_close(tmp_path / "admin.sock", group)
    finally:
        os.umask(before)
    assert stat.S_ISSOCK(found) and stat.S_IMODE(found) == mode
    assert not (tmp_path / "admin.sock").exists()


def test_a_path_too_long_for_a_socket(tmp_path):
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    assert stat.S_IMODE(start_and_close(directory / "admin.sock")) == 0o600

    async def story(call):
        return await call(admin_request, "GET", "/v1/status")

    assert serve(directory, Operations(), story)[0] == 200


def test_a_stale_socket_is_replaced(tmp_path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "admin.sock"))
    start_and_close(tmp_path / "admin.sock")


@pytest.mark.parametrize("backlog_full", [False, True])
def test_a_served_socket_is_left_alone(tmp_path, backlog_full):
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as client:
        other.bind(str(path))
        other.listen(0)
        if backlog_full:
            client.connect(str(path))
        with pytest.raises(StateError, match="another process"):
            start_and_close(path)
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "dangling"])
def test_what_is_no_socket_is_left_alone(tmp_path, kind):
    path = tmp_path / "admin.sock"
    if kind == "file":
        path.write_text("mine")
    elif kind == "directory":
        path.mkdir()
    else:
        target = tmp_path / "target"
        if kind == "symlink":
            target.write_text("mine")
        path.symlink_to(target)
    with pytest.raises(StateError, match="no socket"):
        start_and_close(path)
    assert os.path.lexists(path)


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(StateError, match="No such file"):
        start_and_close(tmp_path / "gone" / "admin.sock")


def test_a_group_that_cannot_be_given_leaves_no_socket(tmp_path, monkeypatch):
    def fail(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", fail)
    with pytest.raises(StateError, match="not permitted"):
        start_and_close(tmp_path / "admin.sock", 4343)
    assert not (tmp_path / "admin.sock").exists()


def test_closing_removes_only_the_own_socket(tmp_path):
    path = tmp_path / "admin.sock"

    async def story() -> None:
        server = AdminServer(path, None, Operations())
        await server.start()
        path.unlink()
        path.write_text("another one's")
        await server.close()

    run_on(asyncio.new_event_loop, story())
    assert path.read_text() == "another one's"
