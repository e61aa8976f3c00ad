"""SVIDs from three files that somebody renews: the last good set stays until a better one is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.clock import Clock
from sidecar.errors import ConfigurationError, IdentityError, SidecarError, UnavailableError
from sidecar.identity.bundle import Bundles
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.identity.svid import Snapshot, Svid
from sidecar.settings import Settings
from sidecar.sources.places import Places
from sidecar.sources.reading import Mark, mark_of, read_bundles, read_svid, verify_own

log = logging.getLogger(__name__)

POLL_S: Final = 0.5
# Chain and key are two files, and some write them in place: whoever looks in the middle of a renewal meets a
# pair that does not match, or half a file. What is wrong has to stay so for a moment before it is trouble.
START_ATTEMPTS: Final = 4
SETTLE_S: Final = 0.1

Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the files: what to put in force (None: nothing new) and what is wrong (None: nothing)."""

    marks: tuple[Mark, Mark, Mark]
    snapshot: Snapshot | None
    trouble: SidecarError | None


class FilesSource:
    """Reads ``places`` and looks every half second whether they changed.

    SVID and bundles are judged apart, so that neither can hold up the other: a bundle without the authority
    that was taken out is in force at once, even while the pair of chain and key does not match; a renewed
    SVID is, even while the bundle is damaged. A new SVID has to hold before the newest good bundle. ``pause``
    sleeps; tests hand in theirs.
    """

    def __init__(
        self, places: Places, expected: SpiffeId | None, clock: Clock, pause: Pause = asyncio.sleep
    ) -> None:
        self._places = places
        self._expected = expected
        self._clock = clock
        self._pause = pause
        self._held: Snapshot | None = None
        self._marks: tuple[Mark, Mark, Mark] | None = None
        self._trouble: str | None = None
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None
        self._on_failure: Callable[[SidecarError], None] = lambda error: None

    async def start(self, attempts: int = START_ATTEMPTS) -> Snapshot:
        """The first snapshot. :class:`SidecarError` when a file, or the set of them, is not fit for use."""
        for attempts_left in reversed(range(attempts)):
            reading = await asyncio.to_thread(self._read)
            if reading.snapshot is not None:
                self._accept(reading)
                return reading.snapshot
            if attempts_left:
                await self._pause(SETTLE_S)
        raise reading.trouble or UnavailableError("there is no SVID")

    def watch(
        self, on_snapshot: Callable[[Snapshot], None], on_failure: Callable[[SidecarError], None]
    ) -> None:
        """Begins to look for changes; see :class:`~sidecar.sources.SvidSource`."""
        self._on_snapshot = on_snapshot
        self._on_failure = on_failure
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="svid-files")

    async def reload(self) -> None:
        """Looks now, whether or not anything seems to have changed."""
        await self._look(force=True)

    async def close(self) -> None:
        """Stops looking."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await self._pause(POLL_S)
            try:
                await self._look(force=False)
            except Exception as exc:
                # Boundary: a watch that ended would let the SVID run out unseen.
                log.debug("looking for a new SVID failed", exc_info=True)
                self._tell(UnavailableError(f"looking for a new SVID failed: {type(exc).__name__}: {exc}"))

    async def _look(self, *, force: bool) -> None:
        async with self._looking:
            if not force and not self._is_due():
                return
            reading = await self._read_and_hand_over()
            if reading.trouble is not None and str(reading.trouble) != self._trouble:
                await self._pause(SETTLE_S)
                reading = await self._read_and_hand_over()
            self._tell(reading.trouble)

    async def _read_and_hand_over(self) -> Reading:
        reading = await asyncio.to_thread(self._read)
        if reading.snapshot is not None:
            self._on_snapshot(reading.snapshot)  # if this raises, the snapshot is not taken for held
        self._accept(reading)
        return reading

    def _is_due(self) -> bool:
        """Whether to read: something changed, the last look found trouble, or the own SVID has ended."""
        held = self._held
        return (
            self._trouble is not None
            or held is None
            or held.svid.not_after <= self._clock.now()
            or self._marks != self._marks_now()
        )

    def _accept(self, reading: Reading) -> None:
        self._marks = reading.marks
        if reading.snapshot is not None:
            self._held = reading.snapshot
            # What the process is called does not change while it runs.
            self._expected = reading.snapshot.svid.spiffe_id

    def _tell(self, trouble: SidecarError | None) -> None:
        before, self._trouble = self._trouble, None if trouble is None else str(trouble)
        if trouble is not None and self._trouble != before:
            self._on_failure(trouble)
        elif trouble is None and before is not None:
            log.info("the files of the SVID are in order again")

    def _read(self) -> Reading:
        """Runs in a thread: files may be slow, and a chain costs a fifth of a millisecond to verify."""
        marks = self._marks_now()  # before reading: what changes meanwhile is then seen the next time
        held = self._held
        svid, bundles = None, None if held is None else held.bundles
        troubles: list[SidecarError] = []
        try:
            svid = read_svid(self._places, self._expected)
        except SidecarError as exc:
            troubles.append(exc)
        named = svid or (None if held is None else held.svid)
        if named is None:
            return Reading(marks, None, troubles[0])
        try:
            bundles = read_bundles(self._places.bundle, named.spiffe_id.trust_domain)
        except SidecarError as exc:
            troubles.append(exc)
        try:
            if svid is not None and bundles is not None:
                verify_own(svid, bundles, self._clock.now())
        except IdentityError as exc:
            troubles.append(exc)
            svid = None
        return Reading(marks, self._newer(svid, bundles), troubles[0] if troubles else None)

    def _newer(self, svid: Svid | None, bundles: Bundles | None) -> Snapshot | None:
        """The next generation, unless it would be the same or there is not enough for a first one."""
        held = self._held
        if held is None:
            return None if svid is None or bundles is None else Snapshot(1, svid, bundles)
        # The same certificate again is no news, so the key object of the one in force stays.
        svid = held.svid if svid is None or svid.chain == held.svid.chain else svid
        bundles = held.bundles if bundles is None or bundles == held.bundles else bundles
        if svid is held.svid and bundles is held.bundles:
            return None
        return Snapshot(held.generation + 1, svid, bundles)

    def _marks_now(self) -> tuple[Mark, Mark, Mark]:
        return mark_of(self._places.svid), mark_of(self._places.key), mark_of(self._places.bundle)


def build_source(settings: Settings, clock: Clock) -> FilesSource:
    """The source for ``SIDECAR_IDENTITY=files``. :class:`ConfigurationError` when a path is missing."""
    return FilesSource(
        Places(
            _required(settings.svid_file, "SIDECAR_SVID_FILE"),
            _required(settings.svid_key_file, "SIDECAR_SVID_KEY_FILE"),
            _required(settings.bundle_file, "SIDECAR_BUNDLE_FILE"),
        ),
        settings.spiffe_id,
        clock,
    )


def _required(path: Path | None, name: str) -> Path:
    if path is None:
        raise ConfigurationError(f"{name}: required with SIDECAR_IDENTITY=files")
    return path
