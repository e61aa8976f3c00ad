"""The issuer as a process: one of any number on a directory issues, the others stand by."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from sidecar.clock import Clock
from sidecar.errors import ConfigurationError, StateError, UnavailableError
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.issuer.ending import Ending
from sidecar.issuer.entry import parse_entry_id
from sidecar.issuer.issuing import Issuer
from sidecar.issuer.private import FileLock
from sidecar.issuer.store import Store, ensure_store, open_store

log = logging.getLogger(__name__)

# New entries are picked up, and a dead process is succeeded, within this.
POLL_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one issuer process is to do.

    ``entries`` are added first, and stay. With ``init`` a missing authority is made, for their trust domain.
    ``once`` issues what is due and is done.
    """

    directory: Path
    entries: Sequence[SpiffeId] = ()
    init: bool = False
    once: bool = False
    lifetime: timedelta = timedelta(hours=1)


def run_issuer(task: Task, clock: Clock, ending: Ending) -> bool:
    """Issues until it is told to end; False if the one pass of ``once`` left something undone.

    Raises :class:`ConfigurationError` and :class:`StateError` when it cannot start, or when its directory was
    replaced.
    """
    store = _prepare(task, clock)
    lock = store.run_lock()
    try:
        if not _await_turn(task, lock, ending):
            return True
        store.remove_temporaries()
        issuer = Issuer(store, store.load_authority(), clock, task.lifetime, _about_half)
        log.info("issuing", extra={"directory": str(store.directory), "trust_domain": store.trust_domain})
        if task.once:
            return issuer.tick()
        _issue_until(lambda: ending.wait(POLL_S), issuer, lock)
        return True
    finally:
        lock.release()


def _prepare(task: Task, clock: Clock) -> Store:
    domains = {each.trust_domain for each in task.entries}
    if task.init and len(domains) != 1:
        raise ConfigurationError("an authority is made for the trust domain of the entries; name one --entry")
    store = ensure_store(task.directory, domains.pop(), clock) if task.init else open_store(task.directory)
    for each in task.entries:
        if store.add(parse_entry_id(str(each), store.trust_domain), clock):
            log.info("entry added", extra={"spiffe_id": str(each)})
    return store


def _await_turn(task: Task, lock: FileLock, ending: Ending) -> bool:
    """Waits for the lock; False when told to end first. With ``once`` :class:`UnavailableError` instead."""
    is_told = False
    while not lock.acquire(wait=False):
        if task.once:
            raise UnavailableError(
                f"another process issues in {str(task.directory)!r}; there is nothing left to do"
            )
        if not is_told:
            log.info("another process issues here; standing by", extra={"directory": str(task.directory)})
            is_told = True
        if ending.wait(POLL_S):
            return False
    return True


def _issue_until(is_told_to_end: Callable[[], bool], issuer: Issuer, lock: FileLock) -> None:
    problem: str | None = None
    while True:
        if not lock.is_held:
            raise StateError("the issuer's directory was replaced or removed; start again")
        try:
            issuer.tick()
            problem = None
        except OSError as exc:
            if str(exc) != problem:
                problem = str(exc)
                log.error("the entries cannot be read; trying again", extra={"error": problem})
        if is_told_to_end():
            return


def _about_half() -> float:
    return random.uniform(0.45, 0.55)  # noqa: S311 - spreads load; nothing rests on it being hard to guess
