from __future__ import annotations

import asyncio

import pytest

from sidecar.tls import linger as module
from sidecar.tls.linger import LINGER_BYTES, Linger


class Raw:
    """A raw transport that counts what is done to it."""

    def __init__(self, unsent: int = 0, error: OSError | None = None) -> None:
        self.calls: list[str] = []
        self.unsent = unsent
        self.ended = asyncio.Event()
        self._error = error

    def write_eof(self) -> None:
        self.calls.append("write_eof")
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")
        self.ended.set()

    def get_write_buffer_size(self) -> int:
        self.calls.append("size")
        return self.unsent


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "LINGER_S", 0.001)
    monkeypatch.setattr(module, "FLUSH_S", 0.01)


def play(story):
    return asyncio.run(asyncio.wait_for(story(), 10))


def test_it_waits_for_the_peer_only_so_long():
    async def story():
        raw = Raw()
        Linger(raw, is_ended=False)
        assert raw.calls == ["write_eof"]
        await raw.ended.wait()
        assert raw.calls == ["write_eof", "size", "abort"]

    play(story)


def test_what_is_unsent_gets_more_time_but_not_for_ever():
    async def story():
        raw = Raw(unsent=1)
        Linger(raw, is_ended=False)
        await raw.ended.wait()
        assert 5 < raw.calls.count("size") <= 12 and raw.calls[-1] == "abort"

    play(story)


def test_a_peer_that_has_ended_already_is_not_waited_for():
    async def story():
        raw = Raw()
        linger = Linger(raw, is_ended=True)
        assert raw.calls == ["close"]
        linger.cancel()

    play(story)


def test_a_peer_that_is_gone_is_left():
    async def story():
        raw = Raw(error=OSError(107, "not connected"))
        Linger(raw, is_ended=False)
        assert raw.calls == ["write_eof", "abort"]

    play(story)


@pytest.mark.parametrize(("sizes", "is_over"), [([LINGER_BYTES], False), ([LINGER_BYTES, 1], True)])
def test_only_so_much_is_dropped(monkeypatch, sizes, is_over):
    monkeypatch.setattr(module, "LINGER_S", 60)

    async def story():
        raw = Raw()
        linger = Linger(raw, is_ended=False)
        for size in sizes:
            linger.drop(size)
        assert ("abort" in raw.calls) is is_over
        linger.cancel()

    play(story)


def test_once_over_nothing_is_done_any_more():
    async def story():
        raw = Raw()
        linger = Linger(raw, is_ended=False)
        linger.cancel()
        linger.cancel()
        await asyncio.sleep(0.01)
        assert raw.calls == ["write_eof"]

    play(story)
