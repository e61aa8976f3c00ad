"""The book of one sidecar's grants: judged when they come, on disk before they count, ended by any clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sidecar.breakglass.desk import Desk
from sidecar.breakglass.entries import TimeSeen, Used, Voided, decode_entry, encode_entry
from sidecar.breakglass.holdings import Holdings, OnEvent
from sidecar.breakglass.ledger import Ledger
from sidecar.breakglass.listing import describe_grant, describe_held
from sidecar.breakglass.signers import Signers
from sidecar.breakglass.verify import GrantRules
from sidecar.clock import Clock, rfc3339_s
from sidecar.errors import OrderRefused
from sidecar.identity.route import Segments
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.journal import open_journal

REWRITE_ABOVE_ENTRIES: Final = 1000

__all__ = ["GrantBook", "GrantRules", "open_grant_book"]


class GrantBook:
    """Answers the decision's questions about grants, takes orders, counts uses.

    It is a :class:`sidecar.authz.ports.Grants`. Belongs to one event loop. Made by :func:`open_grant_book`.
    """

    def __init__(self, holdings: Holdings, clock: Clock) -> None:
        self._holdings = holdings
        self._ledger = holdings.ledger
        self._clock = clock
        self._desk = Desk(holdings)
        self._using: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._closed = False

    @property
    def generation(self) -> int:
        """Changes whenever a grant is accepted, revoked or ends. To ask for it lets time take effect."""
        self._holdings.settle()
        return self._holdings.generation

    @property
    def entries(self) -> int:
        """Entries of the journal that are on disk; every checkpoint of the log states it."""
        return self._holdings.journal.entries

    @property
    def trouble(self) -> str | None:
        """Why nothing can be accepted or used any more; None while all is well."""
        return self._holdings.journal.trouble

    @property
    def recovered_bytes(self) -> int:
        """How much of a torn end was cut off the journal at this start."""
        return self._holdings.journal.recovered_bytes

    @property
    def void_before_s(self) -> float:
        """Grants signed before this (Unix seconds) are void.

        The journal began then, or was found to be older than the log.
        """
        return self._ledger.void_before_s

    @property
    def active_count(self) -> int:
        """How many grants are in force now."""
        return sum(1 for _ in self.in_force())

    def in_force(self) -> Iterator[tuple[str, float]]:
        """Id and end (Unix seconds) of every grant in force now."""
        wall_s, boot_s = self._holdings.now()
        for held in self._ledger.grants.values():
            if self._ledger.is_in_force(held, wall_s, boot_s):
                yield held.grant.id, held.end_s(wall_s, boot_s)

    def find(self, caller: str, method: str, segments: Segments, wall_s: float) -> tuple[str, float] | None:
        """Id and end of the grant for this call that lasts longest, a use left; None if there is none."""
        candidates = self._holdings.candidates(caller)
        if not candidates:
            return None
        boot_s = self._clock.boottime_s()
        ends = [
            (held.end_s(wall_s, boot_s), held.grant.id)
            for held in candidates
            if self._ledger.state(held, wall_s, boot_s) == "active" and held.grant.covers(method, segments)
        ]
        if not ends:
            return None
        end_s, grant_id = max(ends)
        return grant_id, end_s

    def is_in_force(self, grant_id: str, wall_s: float) -> bool:
        """Whether a call that is open under the grant may go on; it may be its last use."""
        held = self._ledger.grants.get(grant_id)
        return held is not None and self._ledger.is_in_force(held, wall_s, self._clock.boottime_s())

    def record_use(self, grant_id: str, call_id: str) -> asyncio.Future[None]:
        """Takes one use for the call, at once; the future is done when that is on disk. One call counts once.

        Raises OrderRefused (``not-in-force``, ``used-up``). The future fails with :class:`StateError` or
        :class:`UnavailableError`; the use stays taken then, since it may be on disk all the same. What
        ``on_event`` raises comes through, and no use is taken: none passes that nobody was told of.
        """
        held = self._ledger.grants.get(grant_id)
        if held is None or not self._holdings.is_in_force(held):
            raise OrderRefused("not-in-force", f"the grant {grant_id!r} is not in force")
        if (waiting := self._using.get((grant_id, call_id))) is not None:
            return waiting
        if call_id in held.calls:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        if not held.has_use_left:
            raise OrderRefused("used-up", f"the grant {grant_id!r} has no use left")
        body = {"grant": grant_id, "call": call_id, "uses": held.uses + 1, "first": held.uses == 0}
        self._holdings.on_event("use", {"result": "ok", **body})
        entry = Used(self._clock.wall_s(), self._holdings.look(), grant_id, call_id)
        self._ledger.apply(entry)
        future = self._using[grant_id, call_id] = self._holdings.write(entry)
        future.add_done_callback(lambda done: self._end_use(grant_id, call_id, done))
        return future

    def _end_use(self, grant_id: str, call_id: str, future: asyncio.Future[None]) -> None:
        del self._using[grant_id, call_id]
        if not future.cancelled() and future.exception() is not None:
            self._holdings.on_event("use", {"result": "failed", "grant": grant_id, "call": call_id})

    async def submit_order(self, data: bytes) -> dict[str, Any]:
        """Judges an order; it is on disk and counts when this returns. The answer has JSON's types.

        ``result`` is ``accepted``, or ``known`` when the order was here before, and then nothing has changed.
        Raises OrderRefused (codes in :mod:`sidecar.breakglass.verify`), and :class:`UnavailableError` or
        :class:`StateError` when it cannot be kept. A revocation counts from the moment it is judged, even if
        it then cannot be kept.
        """
        return await self._desk.submit(data)

    def replace_signers(self, signers: Signers) -> None:
        """From now on these sign.

        A grant that would not be accepted from them does not count while that is so.
        """
        holdings = self._holdings
        holdings.signers = signers
        lost = []
        for held in self._ledger.grants.values():
            stood = holdings.is_in_force(held)
            holdings.judge(held)
            if stood and held.doubt is not None:
                lost.append(held)
        holdings.refresh()
        for held in lost:
            holdings.on_event("unbacked", {"result": "ok", "grant": held.grant.id, "code": held.doubt})

    def settle(self) -> None:
        """Lets time take effect: ends, reminders of reviews. To be called about once a second."""
        self._holdings.settle()

    def listing(self) -> list[dict[str, Any]]:
        """Every grant that is known, the last to end first; JSON's types."""
        wall_s, boot_s = self._holdings.now()
        known = sorted(self._ledger.grants.values(), key=lambda held: -held.grant.not_after_s)
        return [describe_held(held, self._ledger, wall_s, boot_s) for held in known]

    async def close(self) -> None:
        """Notes what has ended and the time, then closes the journal. Harmless when repeated."""
        try:
            if not self._closed:
                self._closed = True
                self._holdings.settle()
                self._holdings.write(TimeSeen(self._clock.wall_s(), self._holdings.look()), urgent=True)
        finally:
            await self._holdings.journal.close()


async def open_grant_book(
    path: Path,
    *,
    own_id: SpiffeId,
    signers: Signers,
    rules: GrantRules,
    clock: Clock,
    on_event: OnEvent,
    at_least_entries: int | None = 0,
) -> GrantBook:
    """The book whose journal is at ``path``. Reads it before it returns, which blocks.

    ``at_least_entries`` is what the last checkpoint of the log says; None: there is no log that says anything. A
    journal with fewer was lost or put back, a new one has forgotten whatever there was, and one without its log may
    be any of these: every grant that was signed before now is void then, those in it and those that are still to
    come. Otherwise grants that were in force go on, if the signers
    and rules of today would have accepted them.

    ``on_event(event, body)`` hears, before it counts, of ``submit`` (a grant, and every order that is
    refused), ``use``, ``revoke``, ``review``, ``end``, ``resume`` (in force from before this start),
    ``unbacked`` (its signers may not sign any more), ``overdue`` (used, and not reviewed for 72 h), ``begin``
    (the journal is new), ``void`` (it is older than the log), ``clock`` (it went back) and ``recovered`` (a
    torn end was cut off). ``body["result"]`` is ``ok``, ``refused`` or ``failed``.

    Raises :class:`StateError` when the journal is damaged or another process has it,
    :class:`UnavailableError` when the disk fails.
    """
    ledger = Ledger()
    journal = open_journal(path, lambda data: ledger.apply(decode_entry(data)))
    try:
        holdings = Holdings(journal, ledger, own_id, signers, rules, clock, on_event)
        if journal.recovered_bytes:
            on_event("recovered", {"result": "ok", "bytes": journal.recovered_bytes})
        entries = journal.entries
        _compact(holdings)
        if entries and at_least_entries is None:
            await _void(holdings, "void", "the log that vouches for the journal is gone")
        elif entries < (at_least_entries or 0):
            await _void(
                holdings, "void", f"the journal has {entries} entries, the log knows of {at_least_entries}"
            )
        elif entries == 0:
            await _void(holdings, "begin", "the journal of grants is new")
        for held in ledger.grants.values():
            holdings.judge(held)
        holdings.refresh()
        _tell_of_start(holdings)
    except BaseException:
        await journal.close()
        raise
    return GrantBook(holdings, clock)


async def _void(holdings: Holdings, event: str, why: str) -> None:
    """Nothing that was signed before this second counts: whether it was revoked or used up, nobody can say."""
    void = Voided(float(int(holdings.now()[0])), holdings.look(), why)
    holdings.ledger.apply(void)
    await holdings.write(void, urgent=True)
    holdings.on_event(event, {"result": "ok", "detail": why, "signed_before": rfc3339_s(void.wall_s)})


def _tell_of_start(holdings: Holdings) -> None:
    """What is in force from before, and why it is not if the clock went back."""
    for held in holdings.ledger.grants.values():
        if holdings.is_in_force(held):
            body = {**describe_grant(held.grant), "signers": list(held.signers), "uses": held.uses}
            holdings.on_event("resume", {"result": "ok", **body})
    try:
        holdings.check_clock()
    except OrderRefused as exc:
        holdings.on_event("clock", {"result": "refused", "detail": str(exc)})


def _compact(holdings: Holdings) -> None:
    """Leaves out of the journal what nobody has to know any more, if that is much."""
    ledger, journal = holdings.ledger, holdings.journal
    ledger.forget(holdings.look())
    entries = [encode_entry(entry) for entry in ledger.snapshot()]
    if journal.file_entries - len(entries) > REWRITE_ABOVE_ENTRIES:
        journal.rewrite(entries)
