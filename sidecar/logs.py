"""The service log on stderr: JSON lines for machines, plain lines for a terminal. Not the audit log."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

from sidecar.terminal import escape

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]

# Whatever else a record carries came in by `extra=` and belongs to the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logging(level: Level, format: Format | None, stream: TextIO | None = None) -> None:
    """Sends log records of at least ``level`` to ``stream`` (stderr); libraries speak from ``warning`` on.

    Without a format it is ``text`` on a terminal and ``json`` elsewhere. The last call counts.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    chosen = format or ("text" if stream.isatty() else "json")
    handler.setFormatter(TextFormatter() if chosen == "text" else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, _number(level)))
    logging.getLogger("sidecar").setLevel(_number(level))
    # A stranger's bad bytes on the status port are an answer of 400, not a page of traceback.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    logging.captureWarnings(True)


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
