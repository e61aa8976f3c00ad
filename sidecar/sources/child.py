"""The issuer as our child: started again when it dies, and never left behind."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import sidecar
from sidecar.clock import Clock
from sidecar.errors import ConfigurationError, SidecarError, UnavailableError
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.settings import Settings

STOP_TIMEOUT_S: Final = 5.0
FIRST_BACKOFF_S: Final = 0.5
LONGEST_BACKOFF_S: Final = 30.0
# One that has lived this long was in order; its death is a new story.
STEADY_S: Final = 60.0


class Process(Protocol):
    """What is used of :class:`subprocess.Popen`."""

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        ...

    def terminate(self) -> None:
        """SIGTERM."""
        ...

    def kill(self) -> None:
        """SIGKILL."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; raises :class:`subprocess.TimeoutExpired`."""
        ...


Start = Callable[[], Process]


class IssuerChild:
    """Keeps one issuer process running; :meth:`check` is called about twice a second.

    ``start`` starts it; ``spread`` gives a factor that keeps many sidecars from starting theirs in step.
    """

    def __init__(self, start: Start, clock: Clock, spread: Callable[[], float] | None = None) -> None:
        self._start = start
        self._clock = clock
        self._spread = spread or _about_one
        # Looked after in a thread, ended from another: one that is just being started must not be forgotten.
        self._lock = threading.Lock()
        self._process: Process | None = None
        self._is_stopped = False
        self._started_at_s = 0.0
        self._start_after_s: float | None = None
        self._backoff_s = FIRST_BACKOFF_S

    def start(self) -> None:
        """Starts it. Raises :class:`UnavailableError` when the machine cannot, or after :meth:`stop`."""
        with self._lock:
            if self._is_stopped:
                raise UnavailableError("the issuer process is not started again: this is the end")
            self._start_now()

    def check(self) -> SidecarError | None:
        """Starts it again when it is time; the error when it was found dead or could not be started."""
        with self._lock:
            if self._process is not None and (code := self._process.poll()) is not None:
                self._process = None
                if self._clock.monotonic_s() - self._started_at_s >= STEADY_S:
                    self._backoff_s = FIRST_BACKOFF_S
                self._back_off()
                return ended(code)
            if self._start_after_s is not None and self._clock.monotonic_s() >= self._start_after_s:
                try:
                    self._start_now()
                except UnavailableError as exc:
                    return exc
        return None

    def stop(self) -> None:
        """Ends it for good: SIGTERM, five seconds, SIGKILL. Blocks; safe to call twice."""
        with self._lock:
            self._is_stopped = True
            self._start_after_s = None
            process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start_now(self) -> None:
        self._start_after_s = None
        self._started_at_s = self._clock.monotonic_s()
        try:
            self._process = self._start()
        except OSError as exc:
            self._back_off()
            raise UnavailableError(f"the issuer process cannot be started: {exc.strerror}") from exc

    def _back_off(self) -> None:
        self._start_after_s = self._clock.monotonic_s() + self._backoff_s * self._spread()
        self._backoff_s = min(self._backoff_s * 2, LONGEST_BACKOFF_S)


def _about_one() -> float:
    return random.uniform(0.8, 1.2)  # noqa: S311 - spreads load; nothing rests on it being hard to guess


def ended(code: int) -> SidecarError:
    """What it means that the issuer process ended by itself; its own words are in the log already."""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    message = f"the issuer process ended with {how}; the log before this line says why"
    return ConfigurationError(message) if code == ConfigurationError.exit_code else UnavailableError(message)


def issuer_command(directory: Path, spiffe_id: SpiffeId) -> list[str]:
    """The issuer's command line; with ``-P`` nothing in the working directory passes for this package."""
    words = ["issuer", "run", "--tied", "--init", "--dir", str(directory), "--entry", str(spiffe_id)]
    return [sys.executable, "-P", "-m", "sidecar", *words]


def issuer_environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The issuer's whole environment: how Python runs here, how to log, and nothing else of ours."""
    kept = {
        name: value
        for name, value in environ.items()
        if name.startswith("PYTHON") or name == "LD_LIBRARY_PATH"
    }
    root = Path(sidecar.__file__).resolve().parent.parent
    if root.name not in ("site-packages", "dist-packages"):
        # Run from a checkout: the child must find the same one, not another that happens to be installed.
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environ.get("PYTHONPATH", "")]))
    kept["SIDECAR_LOG_LEVEL"] = settings.log_level
    if settings.log_format is not None:
        kept["SIDECAR_LOG_FORMAT"] = settings.log_format
    return kept


class TiedProcess:
    """A child that ends when its standard input does: the kernel closes our end even if we are killed."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """See :class:`Process`."""
        code = self._process.poll()
        if code is not None:
            self._let_go()
        return code

    def terminate(self) -> None:
        """See :class:`Process`."""
        self._process.terminate()

    def kill(self) -> None:
        """See :class:`Process`."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """See :class:`Process`."""
        code = self._process.wait(timeout)
        self._let_go()
        return code

    def _let_go(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
