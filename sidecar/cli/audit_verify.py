"""Verifies the files of a log: finds them and the key, shows how far it is, tells what is proved."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Final

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sidecar.audit.anchors import Anchors, read_anchors
from sidecar.audit.files import parse_number, sort_files
from sidecar.audit.key import load_public_key
from sidecar.audit.report import CLAIM, BadLogError, Report
from sidecar.audit.start import parse_stated_key
from sidecar.audit.verify import verify_log
from sidecar.errors import ConfigurationError, VerificationError

BAR_FROM_BYTES: Final = 32 << 20
LONGEST_LINE_BYTES: Final = 16 << 20
_TORN_TRIES: Final = 5
_TORN_WAIT_S: Final = 0.05


def verify_paths(paths: Sequence[Path], key: Path | None, anchors: Path | None) -> tuple[Report, str]:
    """What the log in a directory, or in these files, consists of, and where the key came from.

    Raises :class:`VerificationError` at the first thing wrong with it, :class:`ConfigurationError` when there is
    nothing to verify or a file cannot be read.
    """
    files, whole = _find_files(paths)
    public_key, source = _find_key(files, key)
    kept = None if anchors is None else _read_anchors(anchors, public_key)
    total = sum(path.stat().st_size for path in files)
    if total < BAR_FROM_BYTES or not sys.stderr.isatty():
        return verify_log(_read_all(files, lambda count: None), public_key, kept, whole=whole), source
    with click.progressbar(length=total, label="verifying", file=sys.stderr) as bar:
        return verify_log(_read_all(files, bar.update), public_key, kept, whole=whole), source


def describe_report(report: Report, source: str, as_json: bool) -> Iterator[str]:
    """What was proved, and what was not."""
    if as_json:
        yield json.dumps({"ok": True, **asdict(report), "key_source": source, "claim": CLAIM}, indent=2)
        return
    yield (
        f"ok: {_count(report.lines, 'line')} (seq {report.first_seq} to {report.seq}), "
        f"{_count(report.checkpoints, 'checkpoint')}, {_count(report.starts, 'start')}, "
        f"{_count(report.files, 'file')}"
    )
    yield f"head {report.head}"
    yield f"log {report.log}, key {report.key} ({source})"
    if report.crashes:
        yield f"{_count(report.crashes, 'start')} after a crash: see may_lack_ms in the lines 'start'"
    if report.gaps:
        yield f"{_count(report.gaps, 'gap')}: calls were refused because the log could not be written"
    if report.signed_seq < report.seq:
        unsigned = _count(report.seq - report.signed_seq, "line")
        yield f"not signed yet: the last {unsigned}, chained but after the last checkpoint"
    for warning in report.warnings:
        yield f"warning: {warning}"
    if report.anchors:
        yield f"{_count(report.anchors, 'anchor')} met, the newest at seq {report.anchored_seq}"
    else:
        yield "no anchors given: a cut end, or a rewrite by whoever has the log's key, would not show"
    yield CLAIM


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _find_files(paths: Sequence[Path]) -> tuple[list[Path], bool]:
    """The files in order, and whether they have to be the whole log."""
    if len(paths) == 1 and paths[0].is_dir():
        files = [paths[0] / name for name in sort_files(os.listdir(paths[0]))]
        if not files:
            raise ConfigurationError(f"there is no audit log in {str(paths[0])!r}")
        return files, True
    for path in paths:
        if not path.is_file():
            raise ConfigurationError(f"{str(path)!r} is no file; name one directory, or the files of one log")
    return list(paths), parse_number(paths[0].name) in (None, 1)


def _find_key(files: Sequence[Path], key: Path | None) -> tuple[Ed25519PublicKey, str]:
    if key is not None:
        return load_public_key(key), f"from {key}"
    beside = files[0].absolute().parent.parent / "audit.pub"
    if beside.exists():
        return (
            load_public_key(beside),
            f"from {beside}, beside the log: whoever could change the log could change it; --key with one kept "
            "elsewhere proves more",
        )
    with files[0].open("rb") as file:
        stated = parse_stated_key(file.readline(LONGEST_LINE_BYTES))
    if stated is None:
        raise ConfigurationError("no key: name the log's public key with --key")
    return stated, "as the log itself states it: this proves only that one writer wrote it; use --key"


def _read_anchors(path: Path, key: Ed25519PublicKey) -> Anchors:
    try:
        with path.open("rb") as file:
            return read_anchors(_lines(file, path.name, lambda count: None), key)
    except VerificationError as exc:
        raise BadLogError(str(path), 0, str(exc)) from exc
    except OSError as exc:
        raise ConfigurationError(f"the anchors {str(path)!r} cannot be read: {exc.strerror}") from exc


def _read_all(
    files: Sequence[Path], progress: Callable[[int], None]
) -> Iterator[tuple[str, Iterable[bytes]]]:
    with ExitStack() as stack:
        for path in files:
            stack.close()
            file = stack.enter_context(path.open("rb"))
            yield path.name, _lines(file, path.name, progress)


def _lines(file: BinaryIO, name: str, progress: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    while line := file.readline(LONGEST_LINE_BYTES + 1):
        if not line.endswith(b"\n"):
            if len(line) > LONGEST_LINE_BYTES:
                raise BadLogError(name, 0, f"a line is longer than {LONGEST_LINE_BYTES} bytes")
            line = _finish(file, line)
        yield line
        done += len(line)
        if done > 1 << 20:
            progress(done)
            done = 0
    progress(done)


def _finish(file: BinaryIO, line: bytes) -> bytes:
    """A last line that may just be being written."""
    for _ in range(_TORN_TRIES):
        if line.endswith(b"\n"):
            break
        time.sleep(_TORN_WAIT_S)
        line += file.readline(LONGEST_LINE_BYTES)
    return line
