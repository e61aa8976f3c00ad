from __future__ import annotations

import os
import signal

import pytest

from sidecar.issuer.ending import SignalledEnding

LONG_S = 30.0  # never waited for: a test that did would show in its duration


@pytest.fixture()
def pipe():
    read, write = os.pipe()
    ends = {"read": read, "write": write}
    yield ends
    for descriptor in ends.values():
        os.close(descriptor)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_a_wait_that_begins_later(number):
    with SignalledEnding() as ending:
        assert ending.wait(0) is False
        os.kill(os.getpid(), number)
        assert ending.wait(LONG_S) is True
        assert ending.wait(LONG_S) is True


def test_the_end_of_the_tie_ends_it(pipe):
    with SignalledEnding(pipe["read"]) as ending:
        assert ending.wait(0) is False
        os.write(pipe["write"], b"something")
        assert ending.wait(0) is False
        os.close(pipe.pop("write"))
        assert ending.wait(LONG_S) is True


def test_a_tied_process_leaves_interrupts_to_its_parent(pipe):
    with SignalledEnding(pipe["read"]) as ending:
        os.kill(os.getpid(), signal.SIGINT)
        assert ending.wait(0) is False
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.wait(LONG_S) is True


def test_the_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with SignalledEnding():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
