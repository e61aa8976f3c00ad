"""The grants that a sidecar holds, alive: ledger, journal and clocks together, and what time does to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final

from sidecar.breakglass.entries import Ended, Entry, TimeSeen, encode_entry
from sidecar.breakglass.ledger import MAX_GRANTS, REVIEW_WITHIN_S, Held, Ledger, State
from sidecar.breakglass.seen import HighestTime
from sidecar.breakglass.signers import Signers
from sidecar.breakglass.verify import GrantRules, verify_grant
from sidecar.clock import Clock, rfc3339_s
from sidecar.errors import OrderRefused
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.journal import Journal

OnEvent = Callable[[str, dict[str, Any]], None]

TIME_ENTRY_EVERY_S: Final = 60.0
LOOK_EVERY_S: Final = 1.0
NEVER: Final = float("inf")


class Holdings:
    """Keeps the ledger and the journal in step, and lets grants begin and end."""

    def __init__(
        self,
        journal: Journal,
        ledger: Ledger,
        own_id: SpiffeId,
        signers: Signers,
        rules: GrantRules,
        clock: Clock,
        on_event: OnEvent,
    ) -> None:
        self.journal = journal
        self.ledger = ledger
        self.own_id = own_id
        self.signers = signers
        self.rules = rules
        self.on_event = on_event
        self.generation = 0
        self._clock = clock
        self._seen = HighestTime(ledger.seen_s, *self.now())
        self._by_subject: dict[str, list[Held]] = {}
        self._next_wall_s = self._next_boot_s = NEVER
        self._next_look_s = 0.0
        self._next_time_entry_s = clock.monotonic_s() + TIME_ENTRY_EVERY_S
        self._overdue: set[str] = set()

    def now(self) -> tuple[float, float]:
        """Wall clock and boot clock, in seconds."""
        return self._clock.wall_s(), self._clock.boottime_s()

    def look(self) -> float:
        """The highest wall time seen, this moment included."""
        return self._seen.look(*self.now())

    def check_clock(self) -> None:
        """Raises OrderRefused (``clock``) while the wall clock is behind what it was before."""
        seen_s = self.look()
        if self._seen.is_behind(self._clock.wall_s()):
            raise OrderRefused("clock", f"the clock went back: it was at {rfc3339_s(seen_s)} before")

    def state(self, held: Held) -> State:
        return self.ledger.state(held, *self.now())

    def is_in_force(self, held: Held) -> bool:
        return self.ledger.is_in_force(held, *self.now())

    def candidates(self, caller: str) -> list[Held]:
        """Grants for this caller that count, or did a moment ago."""
        return self._by_subject.get(caller, [])

    def write(
        self, entry: Entry, then: Callable[[], None] | None = None, *, urgent: bool = False
    ) -> asyncio.Future[None]:
        """Appends to the journal; ``then`` is called once the entry is on disk, whoever waits for it."""
        future = self.journal.append(encode_entry(entry), urgent=urgent)
        if then is not None:
            future.add_done_callback(lambda done: then() if is_durable(done) else None)
        return future

    def judge(self, held: Held) -> None:
        """Whether what was accepted still stands with the signers and rules of today."""
        try:
            held.signers = verify_grant(held.order, self.signers, self.own_id, held.accepted_at_s, self.rules)
            held.doubt = None
        except OrderRefused as exc:
            held.doubt = exc.code

    def refresh(self) -> None:
        """After any change: lets begin what may, and finds the grants that count anew."""
        self.generation += 1
        wall_s, boot_s = self.now()
        seen_s = self.look()
        may_begin = not self._seen.is_behind(wall_s)
        self._by_subject = {}
        self._next_wall_s = self._next_boot_s = NEVER
        for held in self.ledger.grants.values():
            if may_begin and self.ledger.state(held, wall_s, boot_s) == "waiting":
                # Not the wall clock alone: it may be behind by as much as the skew.
                held.end_boot_s = boot_s + held.grant.not_after_s - max(wall_s, seen_s)
            if held.end_boot_s is not None and self.ledger.is_in_force(held, wall_s, boot_s):
                self._by_subject.setdefault(str(held.grant.subject), []).append(held)
                self._next_wall_s = min(self._next_wall_s, held.grant.not_after_s)
                self._next_boot_s = min(self._next_boot_s, held.end_boot_s)

    def settle(self) -> None:
        """Lets time take effect. Cheap while nothing is due."""
        wall_s, boot_s = self.now()
        if wall_s >= self._next_wall_s or boot_s >= self._next_boot_s:
            ended = [held for held in self._counting() if held.has_ended(wall_s, boot_s)]
            for held in ended:
                held.is_ended = True  # first of all; what is told and written comes after
            self.refresh()
            for held in ended:
                self.write(Ended(wall_s, self.look(), held.grant.id), urgent=True)
                self.on_event("end", {"result": "ok", "grant": held.grant.id, "uses": held.uses})
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_EVERY_S
            self._keep_house(now_s, wall_s, boot_s)

    def make_room(self) -> None:
        """Raises OrderRefused (``capacity``) when no further grant can be remembered."""
        if len(self.ledger.grants) >= MAX_GRANTS:
            self.ledger.forget(self.look())
        if len(self.ledger.grants) >= MAX_GRANTS:
            raise OrderRefused("capacity", f"{MAX_GRANTS} grants are known; no more can be kept")

    def _counting(self) -> Iterator[Held]:
        for each in self._by_subject.values():
            yield from each

    def _keep_house(self, now_s: float, wall_s: float, boot_s: float) -> None:
        """Once a second: grants that waited for the clock, reminders, what may be forgotten."""
        seen_s = self.look()
        if not self._seen.is_behind(wall_s) and any(
            self.ledger.state(held, wall_s, boot_s) == "waiting" for held in self.ledger.grants.values()
        ):
            self.refresh()
        for held in self.ledger.grants.values():
            due = held.needs_review and seen_s > held.grant.not_after_s + REVIEW_WITHIN_S
            if due and held.grant.id not in self._overdue:
                self._overdue.add(held.grant.id)
                self.on_event("overdue", {"result": "ok", "grant": held.grant.id, "uses": held.uses})
        self.ledger.forget(seen_s)
        self._overdue &= self.ledger.grants.keys()
        if self._by_subject and now_s >= self._next_time_entry_s:
            self._next_time_entry_s = now_s + TIME_ENTRY_EVERY_S
            self.write(TimeSeen(wall_s, seen_s), urgent=True)


def is_durable(future: asyncio.Future[None]) -> bool:
    """Whether a finished append has put its entry on disk, as far as anybody knows."""
    return not future.cancelled() and future.exception() is None
