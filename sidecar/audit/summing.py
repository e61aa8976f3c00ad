"""Repeated refusals: a hundred a second of one kind get lines of their own, the rest one line a second. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LINES_PER_S: Final = 100
MAX_KINDS: Final = 4096
WINDOW_S: Final = 1.0

Kind = tuple[str, str]
"""Who, and why: (caller's id, reason), or (address, rule) of a handshake. ("", why) are those beyond the table."""


@dataclass(frozen=True, slots=True)
class Sum:
    """``count`` refusals of one kind that have no lines of their own; Unix seconds and ids of the first and last."""

    kind: Kind
    count: int
    first: str
    last: str
    from_s: float
    to_s: float


class Summing:
    """Counts refusals by kind, in windows of a second. The table is bounded, whoever invents new kinds."""

    def __init__(self, lines_per_s: int = LINES_PER_S, max_kinds: int = MAX_KINDS) -> None:
        self._lines_per_s = lines_per_s
        self._max_kinds = max_kinds
        self._windows: OrderedDict[Kind, _Window] = OrderedDict()
        self._ready: list[Sum] = []
        self._summed = 0

    @property
    def has_sums(self) -> bool:
        """Whether something was counted that no line tells yet."""
        return bool(self._ready) or self._summed > 0

    def admit(self, kind: Kind, now_s: float, wall_s: float, item: str) -> bool:
        """Whether this refusal gets a line of its own; else it is counted. ``now_s`` is monotonic, ``item`` its id."""
        window = self._find(kind, now_s)
        window.lines += 1
        if window.lines <= self._lines_per_s:
            return True
        if not window.count:
            window.first, window.from_s = item, wall_s
            self._summed += 1
        window.count += 1
        window.last, window.to_s = item, wall_s
        return False

    def collect(self, now_s: float) -> list[Sum]:
        """The sums whose second is over, each once."""
        return self._collect(lambda window: now_s - window.began_s >= WINDOW_S)

    def collect_all(self) -> list[Sum]:
        """All that was counted, now."""
        return self._collect(lambda window: True)

    def _collect(self, is_due: Callable[[_Window], bool]) -> list[Sum]:
        if self._summed:
            for kind, window in self._windows.items():
                if window.count and is_due(window):
                    self._close(kind, window)
        ready, self._ready = self._ready, []
        return ready

    def _find(self, kind: Kind, now_s: float) -> _Window:
        window = self._windows.get(kind)
        if window is None:
            kind = self._make_room(kind, now_s)
            window = self._windows.get(kind)
            if window is None:
                window = self._windows[kind] = _Window(now_s)
        if now_s - window.began_s >= WINDOW_S:
            if window.count:
                self._close(kind, window)
            window.began_s, window.lines = now_s, 0
        self._windows.move_to_end(kind)
        return window

    def _make_room(self, kind: Kind, now_s: float) -> Kind:
        """The kind under which it is counted: its own where there is room, or old ones can go."""
        while len(self._windows) >= self._max_kinds:
            oldest, window = next(iter(self._windows.items()))
            if now_s - window.began_s < WINDOW_S:
                return ("", kind[1])
            if window.count:
                self._close(oldest, window)
            del self._windows[oldest]
        return kind

    def _close(self, kind: Kind, window: _Window) -> None:
        self._ready.append(Sum(kind, window.count, window.first, window.last, window.from_s, window.to_s))
        self._summed -= 1
        window.count = 0


class _Window:
    __slots__ = ("began_s", "count", "first", "from_s", "last", "lines", "to_s")

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.lines = 0
        self.count = 0
        self.first = self.last = ""
        self.from_s = self.to_s = 0.0
