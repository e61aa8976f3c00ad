"""The real program as a process of its own, and a caller that speaks raw bytes to it over mutual TLS."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

READY_S = 20.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Paths of chain, key and bundle."""

    svid: Path
    key: Path
    bundle: Path

    def client_context(self, *, with_certificate: bool = True) -> ssl.SSLContext:
        """For a caller with this identity that trusts this bundle."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.load_verify_locations(cafile=self.bundle)
        if with_certificate:
            context.load_cert_chain(self.svid, self.key)
        return context


@dataclass(slots=True)
class Answer:
    """One answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str | None:
        return self.headers.get("sidecar-reason")


class Link:
    """One TLS connection to the sidecar; bytes out, answers in."""

    def __init__(self, port: int, context: ssl.SSLContext, timeout_s: float = 10.0) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        try:
            self.tls = context.wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise
        self._kept = b""

    def send(self, data: bytes) -> None:
        self.tls.sendall(data)

    def read_some(self) -> bytes:
        """The next bytes; empty once the sidecar has closed, in order or not."""
        try:
            return self.tls.recv(65536)
        except (ssl.SSLEOFError, ConnectionError):
            return b""

    def read_to_end(self) -> bytes:
        data, self._kept = self._kept, b""
        while more := self.read_some():
            data += more
        return data

    def read_answer(self, method: str = "GET") -> Answer:
        """The next answer, 1xx ones left out. AssertionError when the connection ends inside it."""
        while True:
            head = self._read_until(b"\r\n\r\n")
            first, *lines = head[:-4].decode("latin-1").split("\r\n")
            status = int(first.split(" ")[1])
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            if status >= 200:
                break
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._read_until(b"\r\n")[:-2].split(b";")[0], 16):
                body += self._read_exactly(size + 2)[:-2]
            self._read_until(b"\r\n")
        elif "content-length" in headers:
            body = self._read_exactly(int(headers["content-length"]))
        else:
            body = self.read_to_end()
        return Answer(status, headers, body)

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        self.send(data)
        return self.read_answer(method)

    def is_closed_by_peer(self, timeout_s: float = 5.0) -> bool:
        """Whether the sidecar closes within the time; anything else that it sends is an AssertionError."""
        self.tls.settimeout(timeout_s)
        try:
            more = self._kept or self.read_some()
        except TimeoutError:
            return False
        assert more == b"", more
        return True

    def close(self) -> None:
        self.tls.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_until(self, mark: bytes) -> bytes:
        while mark not in self._kept:
            more = self.read_some()
            assert more, f"the connection ended inside a message: {self._kept!r}"
            self._kept += more
        end = self._kept.index(mark) + len(mark)
        taken, self._kept = self._kept[:end], self._kept[end:]
        return taken

    def _read_exactly(self, count: int) -> bytes:
        while len(self._kept) < count:
            more = self.read_some()
            assert more, f"the connection ended inside a body: {len(self._kept)} of {count} bytes"
            self._kept += more
        taken, self._kept = self._kept[:count], self._kept[count:]
        return taken


class Program:
    """``sidecar run`` with an environment made of the given settings; stopped at the end of the block."""

    def __init__(self, directory: Path, own: Identity, policy: str, upstream: str, **settings: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.policy = directory / "policy.yaml"
        self.policy.write_text(policy)
        self.state = directory / "state"
        self.port, self.status_port = free_ports(2)
        self.environment = {
            "SIDECAR_LISTEN": f"127.0.0.1:{self.port}",
            "SIDECAR_STATUS": f"127.0.0.1:{self.status_port}",
            "SIDECAR_UPSTREAM": upstream,
            "SIDECAR_IDENTITY": "files",
            "SIDECAR_SVID_FILE": str(own.svid),
            "SIDECAR_SVID_KEY_FILE": str(own.key),
            "SIDECAR_BUNDLE_FILE": str(own.bundle),
            "SIDECAR_POLICY": str(self.policy),
            "SIDECAR_STATE_DIR": str(self.state),
            "SIDECAR_DRAIN_DELAY": "0s",
            "SIDECAR_DRAIN_DEADLINE": "2s",
            "SIDECAR_LOG_FORMAT": "json",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / "sidecar.log"

    def start(self, *, wait: bool = True, output: IO[bytes] | None = None) -> None:
        """Starts it, and waits until it is ready unless told not to. Without ``output`` its log is kept."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sidecar", "run"],
                env={**surroundings(), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output or log,
                stderr=output or log,
            )
        if wait:
            self.wait_until(self.is_ready, "it is ready")

    def run_command(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """A command of the sidecar with the same environment."""
        return subprocess.run(
            [sys.executable, "-m", "sidecar", *map(str, words)],
            env={**surroundings(), **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def is_ready(self) -> bool:
        return self.get_status_page("/readyz")[0] == 200

    def get_status_page(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the status port; status 0 when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.status_port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the metric's series that have these labels."""
        total = 0.0
        for line in self.get_status_page("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            found, _, rest = series.partition("{")
            if found == name and all(f'{key}="{want}"' in rest for key, want in labels.items()):
                total += float(value)
        return total

    def link(self, identity: Identity, timeout_s: float = 10.0) -> Link:
        return Link(self.port, identity.client_context(), timeout_s)

    def ask(self, identity: Identity, data: bytes, method: str = "GET") -> Answer:
        """One request on a connection of its own."""
        with self.link(identity) as link:
            return link.ask(data, method)

    def records(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log's lines so far, as objects."""
        lines = [
            json.loads(line)
            for path in sorted((self.state / "audit").glob("*.jsonl"))
            for line in path.read_bytes().splitlines()
        ]
        return [line for line in lines if event is None or line["event"] == event]

    def wait_for_records(self, event: str, count: int) -> list[dict[str, Any]]:
        """At least ``count`` lines of this event, as soon as they are there."""
        self.wait_until(lambda: len(self.records(event)) >= count, f"{count} records {event}")
        return self.records(event)

    def record_of(self, answer: Answer, event: str = "call") -> dict[str, Any]:
        """The one line about the call that was answered so, as soon as it is there."""
        call_id = answer.headers["x-request-id"]
        self.wait_until(
            lambda: any(line["id"] == call_id for line in self.records(event)), f"the record of {call_id}"
        )
        found = [line for line in self.records(event) if line["id"] == call_id]
        assert len(found) == 1, found
        return found[0]

    def wait_until(self, holds: Any, what: str, timeout_s: float = READY_S) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not holds():
            assert self.process is not None
            code = self.process.poll()
            assert code is None, f"exit code {code} before {what}:\n{self.log_text()}"
            assert time.monotonic() < deadline_s, f"waited in vain until {what}:\n{self.log_text()}"
            time.sleep(0.02)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")[-8000:] if self.log.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 20.0) -> int:
        """The exit code, once it has ended by itself."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self) -> int | None:
        """SIGTERM, and the exit code; None if it never ran."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> Program:
        if self.process is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def surroundings() -> dict[str, str]:
    """The test run's environment without anything that would configure a sidecar."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "SPIFFE_"))}


def free_ports(count: int) -> list[int]:
    """Ports that were free on loopback a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def request(
    path: str = "/orders/42", method: str = "GET", *fields: str, host: str = "orders.test", body: bytes = b""
) -> bytes:
    """A plain request; ``fields`` are whole header lines."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
