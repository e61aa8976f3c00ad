"""No private key is in the tree, whatever its form."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MADE = {".git", ".venv", "build", "dist", "__pycache__"}
# The marks are put together, so that this file is not its own finding. A body has to follow: a mark alone is no
# secret.
KEY = re.compile(rb"-----BEGIN [A-Z ]*" + rb"PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64}")


def test_no_private_key_is_in_the_tree() -> None:
    found = []
    for path in ROOT.rglob("*"):
        relative = path.relative_to(ROOT)
        hidden = any(
            part in MADE or part.startswith(".venv") or part.endswith("_cache") for part in relative.parts
        )
        if not hidden and path.is_file() and KEY.search(path.read_bytes()):
            found.append(str(relative))
    assert found == []


def test_a_planted_key_would_be_found() -> None:
    planted = b"-----BEGIN " + b"PRIVATE KEY-----\n" + b"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg" * 2
    assert KEY.search(planted)
