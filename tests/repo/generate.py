"""Writes the generated parts of the documentation: ``python -m tests.repo.generate [--check]``.

A part stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->`` in ``README.md`` or ``docs/*.md``;
NAME is a key of :data:`PARTS`. With ``--check`` nothing is written and the exit code is 1 if a page is stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from sidecar.authz.reasons import render_reasons
from sidecar.settings import render_environment_table

ROOT = Path(__file__).resolve().parents[2]
PARTS: dict[str, Callable[[], str]] = {
    "environment": render_environment_table,
    "reasons": render_reasons,
}


def pages() -> list[Path]:
    """Every page that may have generated parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def regenerate(text: str) -> str:
    """``text`` with all its generated parts made anew; what stands around them stays byte for byte."""
    for name, render in PARTS.items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        text = re.sub(
            f"({re.escape(begin)}).*?({re.escape(end)})",
            lambda found, render=render: f"{found[1]}{render().rstrip()}\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
    return text


def main(arguments: list[str]) -> int:
    stale = [page for page in pages() if page.read_text() != regenerate(page.read_text())]
    for page in stale:
        if "--check" in arguments:
            print(f"{page.relative_to(ROOT)} is not up to date; run: make docs", file=sys.stderr)
        else:
            page.write_text(regenerate(page.read_text()))
            print(f"wrote {page.relative_to(ROOT)}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
