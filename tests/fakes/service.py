"""A local service that records every byte it gets and answers as a test scripts it; one thread a connection."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

Script = Callable[["Visit"], None]

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nok\n"


class Visit:
    """One connection of the sidecar's to the service, as the script sees it."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.received = bytearray()
        self._taken = 0

    def read_some(self) -> bytes:
        """The next bytes; empty at the end."""
        try:
            data = self.link.recv(65536)
        except OSError:
            return b""
        self.received += data
        return data

    def read_head(self) -> bytes:
        """Everything up to the next empty line; empty if the connection ends before one."""
        while True:
            end = self.received.find(b"\r\n\r\n", self._taken)
            if end >= 0:
                head = bytes(self.received[self._taken : end + 4])
                self._taken = end + 4
                return head
            if not self.read_some():
                return b""

    def read_exactly(self, count: int) -> bytes:
        """The next ``count`` bytes, fewer if the connection ends."""
        while len(self.received) - self._taken < count and self.read_some():
            pass
        taken = bytes(self.received[self._taken : self._taken + count])
        self._taken += len(taken)
        return taken

    def send(self, data: bytes) -> None:
        try:
            self.link.sendall(data)
        except OSError:
            pass

    def close(self) -> None:
        """Ends the connection in order: what was sent arrives."""
        self.link.close()


def answer_ok(visit: Visit) -> None:
    """Answers each request with 200, whatever it is; reads bodies that have a length."""
    while head := visit.read_head():
        lower = head.lower()
        place = lower.find(b"content-length:")
        if place >= 0:
            visit.read_exactly(int(lower[place + 15 :].split(b"\r", 1)[0]))
        elif b"transfer-encoding: chunked" in lower:
            while b"0\r\n\r\n" not in visit.received[visit._taken :]:
                if not visit.read_some():
                    return
            visit._taken = len(visit.received)
        body = b"" if head.startswith(b"HEAD ") else b"ok\n"
        visit.send(OK[:-3] + body)


class RecordingService:
    """Listens on loopback (or a Unix socket) and plays ``script`` on each connection."""

    def __init__(self, script: Script = answer_ok, path: str | None = None) -> None:
        self.script = script
        self.visits: list[Visit] = []
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
            self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen(256)
            self.url = f"unix:{path}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def received(self) -> bytes:
        """All bytes of all connections so far."""
        return b"".join(bytes(visit.received) for visit in self.visits)

    def heads(self) -> list[bytes]:
        """The request heads that came, in order of arrival; right while no body looks like a head."""
        return [
            part + b"\r\n\r\n"
            for visit in self.visits
            for part in bytes(visit.received).split(b"\r\n\r\n")
            if b" HTTP/1.1\r\n" in part
        ]

    def wait_for_visits(self, count: int, timeout_s: float = 5.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while len(self.visits) < count:
            assert time.monotonic() < deadline_s, f"{count} connections expected, {len(self.visits)} came"
            time.sleep(0.01)

    def disconnect(self) -> None:
        """Ends every connection that is open, so that no script of before plays on."""
        for visit in self.visits:
            try:
                visit.link.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        """Stops listening and ends every connection."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.disconnect()
        for visit in self.visits:
            visit.link.close()
        self._accepting.join(5)

    def __enter__(self) -> RecordingService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            visit = Visit(link)
            self.visits.append(visit)
            threading.Thread(target=self._play, args=(visit,), daemon=True).start()

    def _play(self, visit: Visit) -> None:
        try:
            self.script(visit)
        finally:
            visit.link.close()
