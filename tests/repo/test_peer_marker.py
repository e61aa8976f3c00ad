"""The ``peer`` marker: a missing program skips a test, and fails it where CI asks for all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
NEEDS_NOTHING_THERE_IS = """
import pytest

@pytest.mark.peer("no-such-program")
def test_needs_it():
    pass
"""


def run_pytest(directory: Path, required: str | None) -> subprocess.CompletedProcess[str]:
    """A pytest of its own over one test that needs a program that does not exist."""
    (directory / "conftest.py").write_text(CONFTEST.read_text())
    (directory / "test_it.py").write_text(NEEDS_NOTHING_THERE_IS)
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = peer(name)\n")
    environment = {name: value for name, value in os.environ.items() if name != "SIDECAR_REQUIRE_PEERS"}
    if required is not None:
        environment["SIDECAR_REQUIRE_PEERS"] = required
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(directory)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("required", [None, "", "0"])
def test_a_missing_program_skips_the_test_and_says_why(tmp_path: Path, required: str | None) -> None:
    done = run_pytest(tmp_path, required)
    assert done.returncode == 0
    assert "1 skipped" in done.stdout
    assert "needs no-such-program" in done.stdout


def test_a_missing_program_fails_the_test_where_all_are_required(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "1")
    assert done.returncode == 1
    assert "1 failed" in done.stdout or "1 error" in done.stdout
    assert "needs no-such-program" in done.stdout
