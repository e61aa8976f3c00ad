from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from sidecar import allocator
from sidecar.allocator import set_allocator


class Library:
    def __init__(self, answer: int) -> None:
        self.calls: list[tuple[int, int]] = []
        self.answer = answer

    def __call__(self, parameter: int, value: int) -> int:
        self.calls.append((parameter, value))
        return self.answer

    @property
    def mallopt(self) -> Library:
        return self


@pytest.mark.parametrize(("answer", "took"), [(1, True), (0, False)])
def test_both_thresholds_are_set(monkeypatch, answer, took):
    library = Library(answer)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: library)
    assert set_allocator() is took
    assert library.calls == [(-1, 2 << 20), (-3, 512 << 10)]


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_a_system_without_them_goes_on(monkeypatch, error):
    def fail(name: object) -> object:
        raise error

    monkeypatch.setattr(allocator.ctypes, "CDLL", fail)
    assert set_allocator() is False


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_the_c_library_takes_them():
    code = "from sidecar.allocator import set_allocator; assert set_allocator()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
