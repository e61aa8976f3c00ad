from __future__ import annotations

import subprocess

import pytest

from sidecar.errors import ConfigurationError, UnavailableError
from sidecar.identity.spiffe_id import parse_spiffe_id
from sidecar.settings import load_settings
from sidecar.sources.child import (
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    STEADY_S,
    IssuerChild,
    ended,
    issuer_command,
    issuer_environment,
)
from tests.fakes.clock import FakeClock

OWN = parse_spiffe_id("spiffe://demo.test/orders")


class FakeProcess:
    """A process that ends when a test says so."""

    def __init__(self, *, ignores_term: bool = False) -> None:
        self.code: int | None = None
        self.told: list[str] = []
        self._ignores_term = ignores_term

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.told.append("terminate")
        if not self._ignores_term:
            self.code = -15

    def kill(self) -> None:
        self.told.append("kill")
        self.code = -9

    def wait(self, timeout: float | None = None) -> int:
        if self.code is None:
            assert timeout is not None, "waits for ever"
            raise subprocess.TimeoutExpired("issuer", timeout)
        return self.code


class Starter:
    """Starts fake processes; fails as long as ``error`` is set."""

    def __init__(self, **options: bool) -> None:
        self.started: list[FakeProcess] = []
        self.error: OSError | None = None
        self._options = options

    def __call__(self) -> FakeProcess:
        if self.error is not None:
            raise self.error
        self.started.append(FakeProcess(**self._options))
        return self.started[-1]


def child_of(starter, clock=None):
    return IssuerChild(starter, clock or FakeClock(), lambda: 1.0)


def test_one_that_runs_is_left_alone():
    starter = Starter()
    child = child_of(starter)
    child.start()
    assert [child.check() for _ in range(3)] == [None] * 3
    assert len(starter.started) == 1


def test_one_that_died_is_told_and_started_again_with_growing_pauses():
    starter, clock = Starter(), FakeClock()
    child = child_of(starter, clock)
    child.start()
    expected_s = FIRST_BACKOFF_S
    for count in range(1, 10):
        starter.started[-1].code = -9
        assert "signal 9" in str(child.check())
        clock.advance(expected_s - 0.01)
        assert child.check() is None
        assert len(starter.started) == count, "too early"
        clock.advance(0.02)
        assert child.check() is None
        assert len(starter.started) == count + 1
        expected_s = min(expected_s * 2, LONGEST_BACKOFF_S)
    assert expected_s == LONGEST_BACKOFF_S


def test_one_that_lived_long_is_started_again_soon():
    starter, clock = Starter(), FakeClock()
    child = child_of(starter, clock)
    child.start()
    for _ in range(5):
        starter.started[-1].code = 1
        child.check()
        clock.advance(LONGEST_BACKOFF_S)
        child.check()
    clock.advance(STEADY_S)
    starter.started[-1].code = 1
    child.check()
    clock.advance(FIRST_BACKOFF_S)
    before = len(starter.started)
    child.check()
    assert len(starter.started) == before + 1


def test_a_machine_that_cannot_start_it_is_tried_again():
    starter, clock = Starter(), FakeClock()
    child = child_of(starter, clock)
    starter.error = OSError(11, "Resource temporarily unavailable")
    with pytest.raises(UnavailableError, match="cannot be started: Resource"):
        child.start()
    clock.advance(FIRST_BACKOFF_S)
    assert "cannot be started" in str(child.check())
    starter.error = None
    clock.advance(FIRST_BACKOFF_S * 2)
    assert child.check() is None
    assert len(starter.started) == 1


@pytest.mark.parametrize(("stubborn", "told"), [(False, ["terminate"]), (True, ["terminate", "kill"])])
def test_the_end_is_asked_for_then_forced(stubborn, told):
    starter = Starter(ignores_term=stubborn)
    child = child_of(starter)
    child.start()
    child.stop()
    child.stop()
    assert starter.started[0].told == told


def test_after_the_end_nothing_is_started():
    starter, clock = Starter(), FakeClock()
    child = child_of(starter, clock)
    child.start()
    starter.started[0].code = 1
    child.check()
    child.stop()
    clock.advance(LONGEST_BACKOFF_S * 2)
    assert child.check() is None
    with pytest.raises(UnavailableError):
        child.start()
    assert len(starter.started) == 1


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (2, ConfigurationError, "exit code 2"),
        (1, UnavailableError, "exit code 1"),
        (-9, UnavailableError, "signal 9"),
    ],
)
def test_what_an_exit_code_means(code, kind, words):
    error = ended(code)
    assert type(error) is kind and words in str(error)


def test_the_command_line(tmp_path):
    command = issuer_command(tmp_path, OWN)
    assert command[1:4] == ["-P", "-m", "sidecar"]
    assert command[4:] == ["issuer", "run", "--tied", "--init", "--dir", str(tmp_path), "--entry", str(OWN)]


def test_the_environment_has_nothing_that_is_only_the_sidecars():
    settings = load_settings(
        {
            "SIDECAR_POLICY": "/p",
            "SIDECAR_IDENTITY": "embedded",
            "SIDECAR_SPIFFE_ID": str(OWN),
            "SIDECAR_LOG_LEVEL": "warning",
            "SIDECAR_LOG_FORMAT": "json",
        }
    )
    environ = {
        "SECRET": "canary",
        "SIDECAR_POLICY": "/p",
        "OPENSSL_CONF": "/x",
        "PATH": "/bin",
        "PYTHONPATH": "/own",
        "PYTHONUTF8": "1",
    }
    made = issuer_environment(settings, environ)
    assert set(made) == {"PYTHONPATH", "PYTHONUTF8", "SIDECAR_LOG_LEVEL", "SIDECAR_LOG_FORMAT"}
    assert (made["SIDECAR_LOG_LEVEL"], made["SIDECAR_LOG_FORMAT"]) == ("warning", "json")
    assert made["PYTHONPATH"].split(":")[-1] == "/own"
