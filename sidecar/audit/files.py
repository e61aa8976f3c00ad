"""The names of a log's files: ``00000001.jsonl`` and so on. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_NAME: Final = re.compile(r"([0-9]{8})\.jsonl", re.ASCII)


def parse_number(name: str) -> int | None:
    """The number that a file's name gives it; None for names that are not those of a log's files."""
    match = _NAME.fullmatch(name)
    return int(match[1]) or None if match else None


def show_number(number: int) -> str:
    """The name of the file with this number."""
    return f"{number:08d}.jsonl"


def sort_files(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are a log's files, in the order in which they were written."""
    return sorted(name for name in names if parse_number(name) is not None)
