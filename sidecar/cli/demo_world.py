"""The demo's surroundings: a directory, an environment, processes, and commands that can be repeated.

Everything is on loopback and below one directory. What is started here is stopped here, on every way out.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sidecar
from sidecar.clock import Clock
from sidecar.errors import SidecarError

COMMAND_TIMEOUT_S = 30.0
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 2.0
POLL_S = 0.05
LINE_WIDTH = 100
LOG_TAIL_LINES = 15

# Nothing of the surroundings may steer the demo: neither somebody's own sidecar nor a web proxy.
FOREIGN_PREFIXES = ("SIDECAR_", "SPIFFE_", "OTEL_")
FOREIGN_NAMES = frozenset(
    {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)


class DemoError(SidecarError):
    """The demo could not be set up, or something in it was not as promised; exit 1."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended. ``command`` is what a reader types into a shell to repeat it."""

    command: str
    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Started:
    """A process that goes on, and the file that its output goes to."""

    name: str
    command: str
    process: subprocess.Popen[bytes]
    log: Path


def find_example() -> Path:
    """The directory of the example service: in a checkout, or inside the installed package.

    Raises DemoError if there is neither.
    """
    package = Path(sidecar.__file__).resolve().parent
    for candidate in (package.parent / "examples" / "orders", package / "_examples" / "orders"):
        if (candidate / "service.py").is_file():
            return candidate
    raise DemoError("the example service is missing from this installation: examples/orders/service.py")


def surrounding_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without what would configure a sidecar or redirect a call."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(FOREIGN_PREFIXES) and name.upper() not in FOREIGN_NAMES
    }


def free_ports(count: int) -> list[int]:
    """``count`` different TCP ports that were free on loopback a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def shell_line(argv: Sequence[str | Path], variables: Mapping[str, str] | None = None) -> str:
    """``argv`` with ``variables`` in front as a POSIX shell reads it, wrapped with backslashes."""
    words = [f"{name}={shlex.quote(value)}" for name, value in (variables or {}).items()]
    words += [shlex.quote(str(word)) for word in argv]
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) > LINE_WIDTH:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return " \\\n    ".join(lines)


def sidecar_command(*words: str | Path) -> list[str | Path]:
    """The sidecar of this very installation, whatever else is on the search path."""
    return [sys.executable, "-m", "sidecar", *words]


def answers(port: int, path: str) -> bool:
    """Whether ``GET path`` on loopback gives 200 over plain HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def accepts(path: Path) -> bool:
    """Whether somebody listens on the Unix socket at ``path``."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


class World:
    """The directory, the processes and the commands of one demo.

    ``directory`` is where everything goes; it has to be new or empty, and it stays. Without it a temporary
    one is made, and removed by :meth:`close`. Raises DemoError if the directory cannot be used.
    """

    def __init__(self, clock: Clock, directory: Path | None = None) -> None:
        self._clock = clock
        self._keep_files = directory is not None
        self.directory = _make_directory(directory)
        self.environment = surrounding_environment(os.environ)
        self.started: list[Started] = []

    def run(
        self,
        argv: Sequence[str | Path],
        variables: Mapping[str, str] | None = None,
        *,
        shown: str | None = None,
    ) -> Ran:
        """Run a command to its end. ``shown`` stands for it where the argument list would not read well.

        Raises DemoError if it cannot be run or has not ended after 30 s; an exit code is the caller's to
        judge.
        """
        line = shown or shell_line(argv, variables)
        try:
            done = subprocess.run(
                [str(word) for word in argv],
                env={**self.environment, **(variables or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise DemoError(f"no end after {COMMAND_TIMEOUT_S:.0f} s: {line}") from exc
        except OSError as exc:
            raise DemoError(f"cannot run {argv[0]}: {exc.strerror}") from exc
        stdout, stderr = (output.decode(errors="replace") for output in (done.stdout, done.stderr))
        return Ran(line, done.returncode, stdout, stderr)

    def start(
        self, name: str, argv: Sequence[str | Path], variables: Mapping[str, str] | None = None
    ) -> Started:
        """Start a process, in a session of its own: an interrupt at the terminal reaches it through us."""
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(word) for word in argv],
                env={**self.environment, **(variables or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = Started(name, shell_line(argv, variables), process, log)
        self.started.append(started)
        return started

    def wait_for(self, what: str, holds: Callable[[], bool], started: Started | None = None) -> None:
        """Wait until ``holds``. Raises DemoError after 30 s, or at once if ``started`` has ended."""
        deadline_s = self._clock.monotonic_s() + READY_TIMEOUT_S
        while not holds():
            if started is not None and started.process.poll() is not None:
                code = started.process.returncode
                raise DemoError(f"{started.name} ended with exit code {code} before {what}")
            if self._clock.monotonic_s() > deadline_s:
                raise DemoError(f"waited {READY_TIMEOUT_S:.0f} s in vain until {what}")
            self.pause(POLL_S)

    def pause(self, seconds: float) -> None:
        """Let ``seconds`` go by."""
        time.sleep(seconds)

    def logs(self) -> str:
        """The last lines that each process wrote, for somebody who has to find out what went wrong."""
        parts = []
        for each in self.started:
            tail = each.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            parts.append("\n".join([f"last lines of {each.name}:", *(f"  {line}" for line in tail)]))
        return "\n".join(parts)

    def stop_line(self) -> str:
        """The command that ends what :meth:`leave_running` leaves.

        It waits for the ends, 10 s at most: who still writes a file would be in the way of removing its directory.
        """
        pids = [str(each.process.pid) for each in reversed(self.started)]
        alive = " ".join(["grep -qsa .", *(f"/proc/{pid}/cmdline" for pid in pids)])
        wait = f"for _ in $(seq 100); do {alive} || break; sleep 0.1; done"
        return f"kill {' '.join(pids)}; {wait}; rm -r {shlex.quote(str(self.directory))}"

    def leave_running(self) -> None:
        """Give up the processes and the files: they are the user's from now on."""
        self._keep_files = True
        for each in self.started:
            # They are meant to outlive us, so an exit code that nobody asks for is no ResourceWarning.
            each.process.returncode = 0
        self.started.clear()

    def close(self) -> None:
        """Stop every process, the last one first, and remove the directory unless it is to stay."""
        while self.started:
            _stop(self.started.pop().process)
        if not self._keep_files:
            shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def open_world(clock: Clock, directory: Path | None) -> Iterator[World]:
    """A world that is closed on every way out of the block."""
    world = World(clock, directory)
    try:
        yield world
    finally:
        world.close()


def _make_directory(directory: Path | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="sidecar-demo-"))
    directory = directory.absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise DemoError(f"{directory} is not empty; name a new directory")
    except OSError as exc:
        raise DemoError(f"cannot use {directory}: {exc.strerror}") from exc
    return directory


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass
    # The rest of its session too: the child of a process that had to be killed must not stay behind.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
