"""``sidecar run``: the loop, the signals, and the exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from sidecar.allocator import set_allocator
from sidecar.app.assembly import Sidecar
from sidecar.clock import SYSTEM_CLOCK
from sidecar.errors import ProblemsError
from sidecar.logs import configure_logging
from sidecar.settings import Settings, warn_of

log = logging.getLogger(__name__)


def run_program(settings: Settings) -> int:
    """Runs until it is told to stop. The exit code: 0 all work finished by itself, 1 calls had to be cut.

    Raises :class:`SidecarError` when it cannot start.
    """
    configure_logging(settings.log_level, settings.log_format, in_background=True)
    set_allocator()
    if settings.ignored:
        log.info("variables that mean nothing to the sidecar", extra={"names": ", ".join(settings.ignored)})
    for warning in warn_of(settings):
        log.warning("%s", warning)
    with asyncio.Runner(loop_factory=_find_loop_factory()) as runner:
        return runner.run(_run(settings))


async def _run(settings: Settings) -> int:
    sidecar = Sidecar(settings, SYSTEM_CLOCK)
    hurry = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()

    def on_term() -> None:
        (hurry if sidecar.drain_asked.is_set() else sidecar.drain_asked).set()

    def on_hup() -> None:
        task = loop.create_task(_reload(sidecar), name="reload")
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_term)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # until there is something to reload
    await sidecar.start()
    try:
        loop.add_signal_handler(signal.SIGHUP, on_hup)
        await sidecar.drain_asked.wait()
        cut = await sidecar.drain(hurry)
    finally:
        await sidecar.close()
    log.info("ended", extra={"calls_cut": cut})
    return 1 if cut else 0


async def _reload(sidecar: Sidecar) -> None:
    try:
        await sidecar.reload()
    except ProblemsError:
        pass  # told already, problem by problem; the old rules stay in force
    except Exception:
        log.exception("the reload failed")


def _find_loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        log.warning("uvloop is missing: each call costs more on asyncio's own loop")
        return asyncio.new_event_loop
    return uvloop.new_event_loop
