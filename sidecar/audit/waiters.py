"""Who waits until records are on disk. Belongs to one event loop; no I/O."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

Done = Callable[[bool], None]


class Waiters:
    """Callbacks, at first without and then under a ticket that goes through the threads; each is called once."""

    __slots__ = ("_last_ticket", "_new", "_tickets")

    def __init__(self) -> None:
        self._new: list[Done] = []
        self._tickets: dict[int, list[Done]] = {}
        self._last_ticket = 0

    def __bool__(self) -> bool:
        """Whether anybody has no ticket yet."""
        return bool(self._new)

    def add(self, done: Done) -> None:
        self._new.append(done)

    def take_ticket(self) -> int:
        """One ticket for all that have none."""
        self._last_ticket += 1
        self._tickets[self._last_ticket], self._new = self._new, []
        return self._last_ticket

    def settle(self, tickets: Iterable[int], on_disk: bool) -> None:
        """Tells those with these tickets, unless :meth:`refuse_all` was quicker."""
        for ticket in tickets:
            _tell(self._tickets.pop(ticket, ()), on_disk)

    def refuse_all(self) -> None:
        """Tells everybody that nothing is known to be on disk."""
        tickets, self._tickets = self._tickets, {}
        new, self._new = self._new, []
        for waiting in (*tickets.values(), new):
            _tell(waiting, False)


def _tell(waiting: Iterable[Done], on_disk: bool) -> None:
    for done in waiting:
        try:
            done(on_disk)
        except Exception:  # one that fails must not keep the others waiting
            log.exception("whoever waited for the audit log failed")
