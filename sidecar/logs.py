"""The service log on stderr: JSON lines for machines, plain lines for a terminal. Not the audit log.

A running sidecar hands its lines to a thread: whoever should read them may not, and then the pipe is full and a write
does not return. Calls must go on all the same, so lines are dropped then, and counted.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import sys
import threading
from datetime import UTC, datetime
from typing import Literal, TextIO

from sidecar.terminal import escape

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]

WAITING_LINES = 10_000
LAST_LINES_S = 1.0

# Whatever else a record carries came in by `extra=` and belongs to the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logging(
    level: Level, format: Format | None, stream: TextIO | None = None, *, in_background: bool = False
) -> None:
    """Sends log records of at least ``level`` to ``stream`` (stderr); libraries speak from ``warning`` on.

    Without a format it is ``text`` on a terminal and ``json`` elsewhere. The last call counts. ``in_background``: a
    stream that takes nothing holds up nobody but the log.
    """
    stream = stream or sys.stderr
    handler = BackgroundHandler(stream) if in_background else logging.StreamHandler(stream)
    chosen = format or ("text" if stream.isatty() else "json")
    handler.setFormatter(TextFormatter() if chosen == "text" else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, _number(level)))
    logging.getLogger("sidecar").setLevel(_number(level))
    # A stranger's bad bytes on the status port are an answer of 400, not a page of traceback.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    logging.captureWarnings(True)


def flush_logging() -> None:
    """Returns when every line so far is written, or nobody takes it."""
    for handler in logging.getLogger().handlers:
        handler.flush()


class BackgroundHandler(logging.Handler):
    """Writes lines in a thread of its own, in order. Beyond ``capacity`` waiting ones the newest are dropped.

    How many were dropped is told in a line of its own as soon as lines are taken again.
    """

    def __init__(self, stream: TextIO, capacity: int = WAITING_LINES) -> None:
        super().__init__()
        self._stream = stream
        try:
            self._fd: int | None = stream.fileno()
        except OSError:  # a stream in memory
            self._fd = None
        self._queue: queue.Queue[str | threading.Event | None] = queue.Queue(capacity)
        self._dropped = self._told = 0  # each written by one side only
        self._thread = threading.Thread(target=self._work, name="service-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._queue.put_nowait(self.format(record) + "\n")
        except queue.Full:
            self._dropped += 1
        except Exception:  # noqa: BLE001 (boundary: a line that cannot be made stops nobody)
            self.handleError(record)

    def flush(self) -> None:
        """Returns when what waits has been written, after :data:`LAST_LINES_S` at most."""
        written = threading.Event()
        try:
            self._queue.put(written, timeout=LAST_LINES_S)
        except queue.Full:
            return
        written.wait(LAST_LINES_S)

    def close(self) -> None:
        """Writes what waits, for :data:`LAST_LINES_S` at most. Harmless when repeated."""
        atexit.unregister(self.close)
        if self._thread.is_alive():
            try:
                self._queue.put(None, timeout=LAST_LINES_S)
            except queue.Full:
                pass  # nobody reads, and the thread goes with the process
            else:
                self._thread.join(LAST_LINES_S)
        super().close()

    def _work(self) -> None:
        while (line := self._queue.get()) is not None:
            if isinstance(line, threading.Event):
                line.set()
                continue
            self._write(line)
            if (missed := self._dropped - self._told) and self._queue.empty():
                self._told += missed
                level = logging.WARNING
                told = logging.LogRecord(
                    __name__, level, "", 0, "lines were dropped: nobody read them", None, None
                )
                told.lines = missed
                self._write(self.format(told) + "\n")

    def _write(self, line: str) -> None:
        try:
            if self._fd is None:
                self._stream.write(line)
                return
            # Past the stream: a write that does not return would hold its lock, and the interpreter could not end.
            data = line.encode(errors="backslashreplace")
            while data:
                data = data[os.write(self._fd, data) :]
        except (OSError, ValueError):  # closed, or a pipe without a reader: there is nobody left to tell
            pass


class JsonFormatter(logging.Formatter):
    """One JSON object per record, ASCII only, so that no character of a message can end or colour a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _extra(record):
            line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str).replace("\x7f", "\\u007f")


class TextFormatter(logging.Formatter):
    """``TIME LEVEL logger: message name=value``; control characters escaped, traceback lines indented."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [f"{_timestamp(record)} {record.levelname} {record.name}: {escape(record.getMessage())}"]
        parts += [f"{name}={escape(str(value))}" for name, value in _extra(record)]
        line = " ".join(parts)
        if record.exc_info:
            # The bar marks what a line of ours may quote; without it a message could fake the next record.
            trace = self.formatException(record.exc_info).split("\n")
            line = "\n".join([line, *(f"    | {escape(text)}" for text in trace)])
        return line


def _extra(record: logging.LogRecord) -> list[tuple[str, object]]:
    return [(name, value) for name, value in vars(record).items() if name not in _STANDARD]


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(level: Level) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
