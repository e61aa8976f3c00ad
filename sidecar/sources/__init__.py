"""Where SVIDs come from, reached by name and imported only when chosen."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol, cast

from sidecar.clock import Clock
from sidecar.errors import ConfigurationError, SidecarError
from sidecar.identity.svid import Snapshot
from sidecar.settings import Settings


class SvidSource(Protocol):
    """Gives the first snapshot, then says when there is a newer one. Used from one event loop only."""

    async def start(self) -> Snapshot:
        """The first snapshot. Raises :class:`SidecarError` when there is none that is fit for use."""
        ...

    def watch(
        self, on_snapshot: Callable[[Snapshot], None], on_failure: Callable[[SidecarError], None]
    ) -> None:
        """Begins to look for changes, which are seen within a second; both callbacks run on the loop.

        A snapshot has a higher ``generation`` than every one before. A failure leaves the last snapshot as it
        is; it is told once, not at each attempt, and attempts go on for ever.
        """
        ...

    async def reload(self) -> None:
        """Looks now; what is found goes to the callbacks of :meth:`watch`."""
        ...

    async def close(self) -> None:
        """Ends everything that the source has started. Safe to call twice, and without :meth:`start`."""
        ...


# Values are module:attribute of something that is called with settings and clock.
SOURCES = {
    "files": "sidecar.sources.files:build_source",
    "embedded": "sidecar.sources.embedded:build_source",
}


def load_source(name: str, settings: Settings, clock: Clock) -> SvidSource:
    """The source called ``name``, not started. :class:`ConfigurationError` for one that is not built."""
    place = SOURCES.get(name)
    if place is None:
        raise ConfigurationError(
            f"SIDECAR_IDENTITY: {name!r} is not built; set it to {' or '.join(sorted(SOURCES))}"
        )
    module, _, attribute = place.partition(":")
    build = getattr(importlib.import_module(module), attribute)
    return cast(SvidSource, build(settings, clock))
