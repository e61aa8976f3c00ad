"""The demo as a user starts it: the whole program, its own processes, real sockets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.demo_world import find_example

pytestmark = pytest.mark.integration

DEMO = [sys.executable, "-m", "sidecar", "demo"]
STEPS = ["allow", "deny", "no certificate", "grant", "expire", "records", "verify", "tamper"]
TIMEOUT_S = 60
NOBODY = 65534


def run_demo(*flags: str, temporary: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """One demo to its end; its temporary directory is made below ``temporary``."""
    return subprocess.run(
        [*DEMO, *flags],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        **options,
    )


def processes_in(directory: Path) -> list[str]:
    """Command lines of all processes that were told of ``directory``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The report of a demo that is left running while the tests of this module look at it."""
    # A short path, so that the service gets its Unix socket.
    temporary = tmp_path_factory.mktemp("d")
    done = run_demo("--keep", "--json", temporary=temporary)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    yield report
    subprocess.run(["sh", "-c", report["stop"]], check=True)
    assert not Path(report["directory"]).exists()


def test_all_eight_steps_are_as_promised(kept: dict[str, Any]) -> None:
    assert kept["ok"] is True
    assert kept["error"] is None
    assert [step["name"] for step in kept["steps"]] == STEPS
    assert all(step["ok"] and step["commands"] for step in kept["steps"])
    assert kept["seconds"] < TIMEOUT_S


def test_a_step_shows_the_refusal_with_its_reason(kept: dict[str, Any]) -> None:
    deny = next(step for step in kept["steps"] if step["name"] == "deny")
    problem = json.loads(deny["commands"][0]["stdout"].partition("\n")[2])
    assert (problem["status"], problem["reason"]) == (403, "scope")
    assert problem["type"] == "urn:sidecar:problem:scope"


@pytest.mark.peer("curl")
def test_the_curl_line_gets_an_order_with_every_check_on(kept: dict[str, Any]) -> None:
    done = subprocess.run(["sh", "-c", kept["curl"]], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["order"]["id"] == 41
    assert answer["caller"] == "spiffe://demo.test/web"


def test_every_command_shown_can_be_repeated(kept: dict[str, Any]) -> None:
    for name in ("allow", "verify", "tamper"):
        step = next(step for step in kept["steps"] if step["name"] == name)
        last = step["commands"][-1]
        done = subprocess.run(
            ["sh", "-c", last["command"]], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == last["exit_code"], done.stdout + done.stderr


def test_the_story_is_told_and_nothing_stays_behind(tmp_path: Path) -> None:
    done = run_demo(temporary=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    headings = [line.partition(":")[0] for line in done.stdout.splitlines() if line and line[0] != " "]
    assert [heading for heading in headings if heading in STEPS] == STEPS
    assert "All 8 steps as promised" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_nothing_stays_behind_when_it_is_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        DEMO,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("deny"):
                process.send_signal(number)
                break
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


def python_for_nobody() -> tuple[str, dict[str, str]] | None:
    """An interpreter that another user may run, and what its environment needs to find the packages of this one."""
    places = [str(find_example().parents[1]), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    for program, variables in ((sys.executable, {}), ("/usr/bin/python3", {"PYTHONPATH": ":".join(places)})):
        try:
            done = subprocess.run(
                [program, "-c", "import sidecar.cli.demo, cryptography, aiohttp"],
                env={**os.environ, **variables},
                cwd="/",
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                capture_output=True,
                check=False,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return program, variables
    return None


@pytest.fixture
def home_of_nobody() -> Iterator[Path]:
    """A directory outside pytest's own, which only its owner may enter."""
    path = Path(tempfile.mkdtemp(prefix="nobody-"))
    os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: the other tests have shown it")
def test_it_needs_no_root(home_of_nobody: Path) -> None:
    found = python_for_nobody()
    if found is None:
        pytest.skip("no interpreter with these packages can be run by another user")
    program, variables = found
    done = subprocess.run(
        [program, "-m", "sidecar", "demo", "--json"],
        env={**os.environ, **variables, "TMPDIR": str(home_of_nobody)},
        cwd="/",
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
