from __future__ import annotations

import io
import json
import logging
import os
import warnings

import pytest

from sidecar.logs import BackgroundHandler, JsonFormatter, configure_logging

HOSTILE = 'a"\n2026-11-24T12:00:00.000Z INFO sidecar: fake \x1b[31m\u2028\x7f\x85\x00'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restore_logging():
    root, ours, server = (
        logging.getLogger(),
        logging.getLogger("sidecar"),
        logging.getLogger("aiohttp.server"),
    )
    handlers, levels = list(root.handlers), (root.level, ours.level, server.level)
    yield
    root.handlers[:] = handlers
    for logger, level in zip((root, ours, server), levels, strict=True):
        logger.setLevel(level)
    logging.captureWarnings(False)


@pytest.mark.parametrize("format", ["text", "json"])
def test_one_record_is_one_line_whatever_it_says(format):
    stream = io.StringIO()
    configure_logging("info", format, stream)
    logging.getLogger("sidecar.x").info("said %s", HOSTILE, extra={"peer": HOSTILE})
    line = stream.getvalue()
    assert line.endswith("\n") and line[:-1].isprintable() and line.count("\n") == 1


def test_json_keeps_every_character():
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    logging.getLogger("sidecar.x").warning(
        "said %s", HOSTILE, extra={"peer": HOSTILE, "level": "fake", "at": object}
    )
    line = json.loads(stream.getvalue())
    assert line["message"] == f"said {HOSTILE}" and line["peer"] == HOSTILE
    assert (line["level"], line["logger"], line["at"]) == ("warning", "sidecar.x", "<class 'object'>")
    assert len(line["ts"]) == 24 and line["ts"].endswith("Z")


def test_a_traceback_cannot_fake_a_record():
    stream = io.StringIO()
    configure_logging("info", "text", stream)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("sidecar").exception("failed")
    first, *rest = stream.getvalue().rstrip("\n").split("\n")
    assert first.endswith("sidecar: failed") and len(rest) > 2
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)


def test_json_has_the_traceback_as_a_member():
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("sidecar").exception("failed")
    assert json.loads(stream.getvalue())["exception"].endswith("ValueError: odd")


@pytest.mark.parametrize(("level", "lines"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_is_the_least_severity(level, lines):
    stream = io.StringIO()
    configure_logging(level, "text", stream)
    log = logging.getLogger("sidecar.x")
    for speak in (log.debug, log.info, log.warning, log.error):
        speak("x")
    logging.getLogger("aiohttp.access").info("never")
    logging.getLogger("aiohttp.server").error("never: bad bytes of a stranger")
    assert stream.getvalue().count("\n") == lines


@pytest.mark.parametrize(("stream", "start"), [(io.StringIO(), "{"), (Terminal(), "2")])
def test_without_a_format_a_terminal_gets_text(stream, start):
    configure_logging("info", None, stream)
    logging.getLogger("sidecar").info("x")
    assert stream.getvalue().startswith(start)


def test_the_last_call_counts():
    first, second = io.StringIO(), io.StringIO()
    configure_logging("info", "text", first)
    configure_logging("info", "text", second)
    logging.getLogger("sidecar").info("x")
    assert first.getvalue() == "" and second.getvalue().count("\n") == 1


def test_warnings_of_libraries_are_records():
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert json.loads(stream.getvalue())["logger"] == "py.warnings"


def test_in_the_background_lines_come_in_order_and_whole():
    reader, writer = os.pipe()
    with open(writer, "w") as stream, open(reader) as lines:
        configure_logging("info", "json", stream, in_background=True)
        for number in range(50):
            logging.getLogger("sidecar.x").info("line %d", number)
        logging.getLogger().handlers[0].close()
        stream.close()
        assert [json.loads(line)["message"] for line in lines] == [f"line {number}" for number in range(50)]


def test_a_reader_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed():
    reader, writer = os.pipe()
    with open(writer, "w") as stream, open(reader) as lines:
        handler = BackgroundHandler(stream, capacity=10)
        handler.setFormatter(JsonFormatter())
        logger = logging.getLogger("sidecar.background")
        logger.handlers[:], logger.propagate = [handler], False
        try:
            for number in range(3000):  # far more than a pipe holds
                logger.warning("line %d %s", number, "x" * 100)
            said, missed = 0, 0
            for line in lines:
                told = json.loads(line)
                if told["message"] == "lines were dropped: nobody read them":
                    missed += told["lines"]
                else:
                    assert told["message"].startswith("line ")
                    said += 1
                if said + missed == 3000:
                    break
        finally:
            logger.handlers.clear()
            logger.propagate = True
            handler.close()
        assert missed > 0 and said >= 10


def test_a_stream_without_a_reader_stops_nobody():
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        handler = BackgroundHandler(stream)
        handler.setFormatter(JsonFormatter())
        handler.emit(logging.makeLogRecord({"msg": "x"}))
        handler.close()
        assert not handler._thread.is_alive()
