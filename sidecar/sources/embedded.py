"""SVIDs from an issuer of our own: a child process writes files, which are read like anybody else's."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

from sidecar.clock import Clock
from sidecar.errors import ConfigurationError, SidecarError, UnavailableError
from sidecar.identity.svid import Snapshot
from sidecar.settings import Settings
from sidecar.sources.child import IssuerChild, TiedProcess, issuer_command, issuer_environment
from sidecar.sources.files import FilesSource, Pause
from sidecar.sources.places import issued_places

log = logging.getLogger(__name__)

START_DEADLINE_S: Final = 10.0
START_POLL_S: Final = 0.05
CHECK_S: Final = 0.5


class EmbeddedSource:
    """Runs ``child`` for as long as it is open, and reads what the issuer writes through ``files``.

    The child may stand by while another sidecar's child issues: what counts is that the files are there. When
    it dies it is started again with back-off for ever, and the last certificate stays in force until its end.
    """

    def __init__(
        self, child: IssuerChild, files: FilesSource, clock: Clock, pause: Pause = asyncio.sleep
    ) -> None:
        self._child = child
        self._files = files
        self._clock = clock
        self._pause = pause
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Snapshot:
        """Starts the child and gives the first snapshot.

        Raises :class:`SidecarError` when the child ends, or has written nothing that is fit for use after 10
        s; then it is stopped.
        """
        try:
            await asyncio.to_thread(self._child.start)
            return await self._first_snapshot()
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._child.stop))
            raise

    def watch(
        self, on_snapshot: Callable[[Snapshot], None], on_failure: Callable[[SidecarError], None]
    ) -> None:
        """Begins to look for changes and after the child; see :class:`~sidecar.sources.SvidSource`."""
        self._files.watch(on_snapshot, on_failure)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._look_after(on_failure), name="svid-issuer"
            )

    async def reload(self) -> None:
        """Looks at the files now."""
        await self._files.reload()

    async def close(self) -> None:
        """Stops looking, and the child."""
        await self._files.close()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(self._child.stop)

    async def _first_snapshot(self) -> Snapshot:
        deadline_s = self._clock.monotonic_s() + START_DEADLINE_S
        while True:
            try:
                return await self._files.start(attempts=1)
            except SidecarError as exc:
                waiting_for = exc
            error = self._child.check()
            if error is not None:
                raise error
            if self._clock.monotonic_s() >= deadline_s:
                raise UnavailableError(
                    f"the issuer process has written no SVID within {START_DEADLINE_S:.0f} s: {waiting_for}"
                ) from waiting_for
            await self._pause(START_POLL_S)

    async def _look_after(self, on_failure: Callable[[SidecarError], None]) -> None:
        while True:
            await self._pause(CHECK_S)
            try:
                # In a thread: starting a process takes milliseconds that calls should not wait for.
                error = await asyncio.to_thread(self._child.check)
                if error is not None:
                    on_failure(error)
            except Exception:
                # Boundary: without this loop nobody would start the issuer again, and nobody would know.
                log.exception("looking after the issuer process failed")


def build_source(settings: Settings, clock: Clock) -> EmbeddedSource:
    """The source for ``SIDECAR_IDENTITY=embedded``. Raises :class:`ConfigurationError` without an own id."""
    spiffe_id = settings.spiffe_id
    if spiffe_id is None or not spiffe_id.is_workload:
        raise ConfigurationError(
            "SIDECAR_SPIFFE_ID: a workload's id is required with SIDECAR_IDENTITY=embedded"
        )
    directory = settings.issuer_dir.absolute()
    command = issuer_command(directory, spiffe_id)
    environment = issuer_environment(settings, os.environ)
    child = IssuerChild(lambda: TiedProcess(command, environment), clock)
    return EmbeddedSource(child, FilesSource(issued_places(directory, spiffe_id), spiffe_id, clock), clock)
