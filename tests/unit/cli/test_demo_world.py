"""The demo's surroundings: what it refuses, what it hides, and that nothing of it stays behind."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cli.demo_world import (
    DemoError,
    World,
    accepts,
    answers,
    find_example,
    free_ports,
    open_world,
    shell_line,
    surrounding_environment,
)
from sidecar.clock import SYSTEM_CLOCK
from tests.fakes.clock import FakeClock

PYTHON = sys.executable
FOR_EVER = [PYTHON, "-c", "import signal; signal.pause()"]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_directory_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(DemoError, match="is not empty"):
        World(FakeClock(), tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoError, match="cannot use"):
        World(FakeClock(), tmp_path / "file" / "below")


def test_a_process_that_ends_early_is_named_at_once(tmp_path: Path) -> None:
    with open_world(SYSTEM_CLOCK, tmp_path) as world:
        started = world.start("orders", [PYTHON, "-c", "print('cannot do this'); raise SystemExit(4)"])
        with pytest.raises(DemoError, match="orders ended with exit code 4 before it answers"):
            world.wait_for("it answers", lambda: False, started)
        assert "cannot do this" in world.logs()


def test_waiting_in_vain_has_an_end(tmp_path: Path) -> None:
    clock = FakeClock()

    class Impatient(World):
        def pause(self, seconds: float) -> None:
            clock.advance(10)

    with pytest.raises(DemoError, match="waited 30 s in vain until it answers"):
        Impatient(clock, tmp_path).wait_for("it answers", lambda: False)


def test_a_program_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="cannot run"):
        World(FakeClock(), tmp_path).run([tmp_path / "no-such-program"])


def test_an_exit_code_is_the_callers_to_judge(tmp_path: Path) -> None:
    ran = World(FakeClock(), tmp_path).run([PYTHON, "-c", "print('no'); raise SystemExit(3)"])
    assert (ran.exit_code, ran.stdout) == (3, "no\n")


def test_a_temporary_directory_and_every_process_are_gone_after_an_error() -> None:
    with pytest.raises(RuntimeError), open_world(SYSTEM_CLOCK, None) as world:
        assert world.directory.stat().st_mode & 0o777 == 0o700
        pids = [world.start(name, FOR_EVER).process.pid for name in ("one", "two")]
        raise RuntimeError
    assert not world.directory.exists()
    assert not any(is_alive(pid) for pid in pids)


def test_what_a_process_started_is_gone_with_it(tmp_path: Path) -> None:
    program = f"import subprocess; p = subprocess.Popen({FOR_EVER!r}); print(p.pid, flush=True); p.wait()"
    with open_world(SYSTEM_CLOCK, tmp_path) as world:
        started = world.start("parent", [PYTHON, "-c", program])
        world.wait_for("the child runs", lambda: started.log.read_bytes().endswith(b"\n"), started)
        child = os.pidfd_open(int(started.log.read_text()))
    try:
        assert select.select([child], [], [], 10)[0] == [child]
    finally:
        os.close(child)


def test_a_named_directory_stays(tmp_path: Path) -> None:
    with open_world(SYSTEM_CLOCK, tmp_path / "new") as world:
        world.start("one", FOR_EVER)
    assert (tmp_path / "new" / "one.log").exists()


def test_what_is_left_running_is_ended_by_the_line_that_says_so() -> None:
    with open_world(SYSTEM_CLOCK, None) as world:
        process = world.start("one", FOR_EVER).process
        line = world.stop_line()
        world.leave_running()
    assert world.directory.exists()
    assert is_alive(process.pid)
    subprocess.run(["sh", "-c", line], check=True)
    process.returncode = None  # leave_running() gave it up; take it back to see how it ended
    assert process.wait(10) == -signal.SIGTERM
    assert not world.directory.exists()


@pytest.mark.parametrize(
    "name",
    [
        "SIDECAR_POLICY",
        "SIDECAR_SERVICE_HOST",
        "SPIFFE_ENDPOINT_SOCKET",
        "OTEL_SERVICE_NAME",
        "https_proxy",
        "SSL_CERT_FILE",
    ],
)
def test_the_surroundings_do_not_steer_the_demo(name: str) -> None:
    assert surrounding_environment({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_a_shell_reads_a_line_as_the_arguments_that_were_run(arguments: list[str]) -> None:
    line = shell_line(["program", *arguments], {"SIDECAR_STATE_DIR": "/tmp/a b"})
    words = shlex.split(line.replace(" \\\n    ", " "))
    assert words == ["SIDECAR_STATE_DIR=/tmp/a b", "program", *arguments]


def test_a_long_line_is_wrapped_where_a_shell_goes_on_reading() -> None:
    arguments = ["--option"] * 40
    line = shell_line([PYTHON, "-c", "import sys; print(*sys.argv[1:])", *arguments])
    assert max(map(len, line.split("\n"))) <= 110
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.split() == arguments


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(5))) == 5


def test_nobody_answers_where_nobody_listens(tmp_path: Path) -> None:
    assert not answers(free_ports(1)[0], "/readyz")
    assert not accepts(tmp_path / "no.sock")


def test_the_example_is_found_in_a_checkout() -> None:
    assert (find_example() / "policy.yaml").is_file()


def test_the_example_is_found_in_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = tmp_path / "sidecar" / "_examples" / "orders"
    example.mkdir(parents=True)
    (example / "service.py").write_text("")
    monkeypatch.setattr("sidecar.__file__", str(tmp_path / "sidecar" / "__init__.py"))
    assert find_example() == example


def test_an_installation_without_the_example_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.__file__", str(tmp_path / "sidecar" / "__init__.py"))
    with pytest.raises(DemoError, match="example service is missing"):
        find_example()
