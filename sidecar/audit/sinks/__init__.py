"""Copies of the log behind the file, reached by name and imported only when chosen."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final, Protocol, cast

from sidecar.clock import Clock
from sidecar.errors import ConfigurationError

SINKS: Final = {"stdout": "sidecar.audit.sinks.stdout:StdoutSink"}


class Sink(Protocol):
    """A copy of the log. ``written`` and ``dropped`` count lines and may be read from other threads."""

    @property
    def written(self) -> int: ...

    @property
    def dropped(self) -> int: ...

    def start(self) -> None: ...

    def take(self, lines: bytes) -> None:
        """Whole lines that the file has. At once, whatever the copy's state; never raises."""
        ...

    def close(self, timeout_s: float) -> None:
        """Blocks until everything taken is delivered or dropped, no longer than this."""
        ...


def load_sink(name: str, clock: Clock) -> Sink:
    """The sink called ``name``. Raises :class:`ConfigurationError` when there is none."""
    place = SINKS.get(name)
    if place is None:
        raise ConfigurationError(f"no audit sink is called {name!r}; known are {', '.join(SINKS)}")
    module, _, attribute = place.partition(":")
    make = cast(Callable[[Clock], Sink], getattr(importlib.import_module(module), attribute))
    return make(clock)
