"""Where orders are handed in: judged, kept, answered."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.breakglass.entries import GrantAccepted, Reviewed, Revoked
from sidecar.breakglass.grant import Grant, Review, Revocation
from sidecar.breakglass.holdings import Holdings
from sidecar.breakglass.ledger import MAX_REVIEWS, MAX_REVOCATIONS
from sidecar.breakglass.listing import describe_grant
from sidecar.breakglass.order import Order, decode_order
from sidecar.breakglass.verify import verify_grant, verify_single
from sidecar.clock import rfc3339_s
from sidecar.errors import OrderRefused, SidecarError, StateError

Answer = dict[str, Any]


class Desk:
    """Takes one order at a time from anybody; nothing but its signatures speaks for it."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._ledger = holdings.ledger
        self._accepting: dict[str, tuple[bytes, asyncio.Future[None]]] = {}
        self._revoking: dict[str, asyncio.Future[None]] = {}

    async def submit(self, data: bytes) -> Answer:
        """See :meth:`sidecar.breakglass.store.GrantBook.submit_order`."""
        order: Order | None = None
        try:
            order = decode_order(data)
            match order.body:
                case Grant():
                    return await self._submit_grant(data, order, order.body)
                case Revocation():
                    return await self._submit_revocation(data, order, order.body)
                case Review():
                    return await self._submit_review(data, order, order.body)
        except SidecarError as exc:
            self._holdings.on_event("submit", _describe_failure(exc, order))
            raise

    async def _submit_grant(self, data: bytes, order: Order, grant: Grant) -> Answer:
        holdings = self._holdings
        wall_s, _ = holdings.now()
        # Steps 1 to 4 of verify_grant; step 5 is what this sidecar knows.
        signers = verify_grant(order, holdings.signers, holdings.own_id, wall_s, holdings.rules)
        self._check_known(order, grant)
        holdings.check_clock()
        answer = {**describe_grant(grant), "signers": list(signers)}
        if grant.id in self._ledger.grants:
            return {"result": "known", **answer}
        result = "known"
        if grant.id not in self._accepting:
            result = "accepted"
            holdings.make_room()
            entry = GrantAccepted(wall_s, holdings.look(), data)
            future = holdings.write(entry, lambda: self._accept(entry, grant.id, answer))
            self._accepting[grant.id] = order.payload, future
            future.add_done_callback(lambda _: self._accepting.pop(grant.id, None))
        await asyncio.shield(self._accepting[grant.id][1])
        if grant.id not in self._ledger.grants:
            raise StateError("the grant is on disk, but nobody could be told of it; it does not count")
        return {"result": result, **answer}

    def _check_known(self, order: Order, grant: Grant) -> None:
        """New, or the same unchanged; not revoked, void or ended. Raises OrderRefused."""
        held = self._ledger.grants.get(grant.id)
        waiting = self._accepting.get(grant.id)
        known = held.order.payload if held else waiting[0] if waiting else order.payload
        if known != order.payload:
            raise OrderRefused("changed", "another grant has this id")
        if grant.id in self._ledger.revocations:
            raise OrderRefused("revoked", "the grant has been revoked")
        void_before_s = self._ledger.void_before_s
        if grant.signed_at_s < void_before_s or (held is not None and held.is_void):
            raise OrderRefused(
                "void",
                f"grants signed before {rfc3339_s(void_before_s)} are void here: {self._ledger.void_why}",
            )
        if held is not None and self._holdings.state(held) == "ended":
            raise OrderRefused("expired", "the grant has ended")

    def _accept(self, entry: GrantAccepted, grant_id: str, told: Answer) -> None:
        """The grant is on disk: it is told of, then it counts."""
        self._holdings.on_event("submit", {"result": "ok", **told})
        self._ledger.apply(entry)
        self._holdings.judge(self._ledger.grants[grant_id])
        self._holdings.refresh()

    async def _submit_revocation(self, data: bytes, order: Order, revocation: Revocation) -> Answer:
        holdings = self._holdings
        signer = verify_single(order, holdings.signers)
        grant_id = revocation.grant_id
        result = "known"
        if grant_id not in self._ledger.revocations:
            if len(self._ledger.revocations) >= MAX_REVOCATIONS:
                raise OrderRefused(
                    "capacity", f"{MAX_REVOCATIONS} revocations are known; no more can be kept"
                )
            result = "accepted"
            entry = Revoked(holdings.now()[0], holdings.look(), data)
            # It counts before it is durable: nobody shall go on because a disk is slow.
            self._ledger.apply(entry)
            holdings.refresh()
            future = holdings.write(entry, lambda: self._forget_revoking(grant_id), urgent=True)
            self._revoking[grant_id] = future
            holdings.on_event(
                "revoke",
                {"result": "ok", "grant": grant_id, "signer": signer, "reason": revocation.reason},
            )
        # One that failed stays here: to send it again must not look like success.
        if (waiting := self._revoking.get(grant_id)) is not None:
            await asyncio.shield(waiting)
        return {"result": result, "kind": "revocation", "grant": grant_id, "signer": signer}

    def _forget_revoking(self, grant_id: str) -> None:
        self._revoking.pop(grant_id, None)

    async def _submit_review(self, data: bytes, order: Order, review: Review) -> Answer:
        holdings = self._holdings
        signer = verify_single(order, holdings.signers)
        held = self._ledger.grants.get(review.grant_id)
        if held is None:
            raise OrderRefused("unknown-grant", f"no grant {review.grant_id!r} is known here")
        if signer == held.grant.requester:
            raise OrderRefused("self-review", f"{signer!r} made the grant; somebody else has to review it")
        if holdings.is_in_force(held):
            raise OrderRefused("not-ended", "the grant is in force; review it when it has ended")
        answer = {"kind": "review", "grant": review.grant_id, "signer": signer, "note": review.note}
        if held.has_review(data):
            return {"result": "known", **answer}
        if len(held.reviews) >= MAX_REVIEWS:
            raise OrderRefused("capacity", f"the grant has {MAX_REVIEWS} reviews already")
        entry = Reviewed(holdings.now()[0], holdings.look(), data)

        def accept() -> None:
            if held.has_review(data):  # handed in twice at the same time
                return
            holdings.on_event("review", {**answer, "result": "ok"})
            self._ledger.apply(entry)

        await asyncio.shield(holdings.write(entry, accept))
        return {"result": "accepted", **answer}


def _describe_failure(error: SidecarError, order: Order | None) -> Answer:
    """A refused or failed order for log, record and metric. What it claims is marked as unproven."""
    refused = isinstance(error, OrderRefused)
    body: Answer = {
        "result": "refused" if refused else "failed",
        "code": error.code if isinstance(error, OrderRefused) else "unavailable",
        "detail": str(error),
    }
    match order.body if order else None:
        case Grant() as grant:
            body["claimed"] = describe_grant(grant)
        case Revocation() | Review() as other:
            kind = type(other).__name__.lower()
            body["claimed"] = {"kind": kind, "grant": other.grant_id, "signer": other.signer}
    return body
