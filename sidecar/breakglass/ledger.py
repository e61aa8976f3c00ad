"""What a sidecar knows about grants: the sum of its journal's entries.

No I/O, no clock; times are handed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar, assert_never

from sidecar.breakglass.entries import (
    Ended,
    Entry,
    GrantAccepted,
    Reviewed,
    Revoked,
    TimeSeen,
    Used,
    UsedBefore,
    Voided,
)
from sidecar.breakglass.grant import Grant, Review, Revocation
from sidecar.breakglass.order import Order, decode_order
from sidecar.errors import OrderRefused, StateError

REMEMBER_S: Final = 24 * 3600
REMEMBER_UNREVIEWED_S: Final = 30 * 24 * 3600
REVIEW_WITHIN_S: Final = 72 * 3600
MAX_GRANTS: Final = 10_000
MAX_REVOCATIONS: Final = 100_000
MAX_REVIEWS: Final = 8

T = TypeVar("T", Grant, Review, Revocation)
State = Literal["active", "used-up", "waiting", "unbacked", "ended", "revoked", "void"]


@dataclass(slots=True)
class Held:
    """One accepted grant, and what became of it.

    ``doubt`` says why it does not count although it was accepted: its signatures are judged again at every
    start and with every change of the signers. ``end_boot_s`` is its end by the boot clock, None before it
    begins to count.
    """

    data: bytes
    order: Order
    grant: Grant
    accepted_at_s: float
    doubt: str | None = "not judged yet"
    signers: tuple[str, ...] = ()
    end_boot_s: float | None = None
    is_ended: bool = False
    is_void: bool = False
    uses: int = 0
    first_use_s: float | None = None
    last_use_s: float | None = None
    calls: set[str] = field(default_factory=set)
    reviews: list[tuple[bytes, Review]] = field(default_factory=list)

    @property
    def has_use_left(self) -> bool:
        return self.grant.max_uses is None or self.uses < self.grant.max_uses

    @property
    def needs_review(self) -> bool:
        return self.uses > 0 and not self.reviews

    def has_review(self, data: bytes) -> bool:
        """Whether this very order is among the reviews."""
        return any(known == data for known, _ in self.reviews)

    def has_ended(self, wall_s: float, boot_s: float) -> bool:
        """By the wall clock or the boot clock, whichever is first."""
        return (
            self.is_ended
            or wall_s >= self.grant.not_after_s
            or (self.end_boot_s is not None and boot_s >= self.end_boot_s)
        )

    def end_s(self, wall_s: float, boot_s: float) -> float:
        """When it will have ended, in Unix seconds, by whichever clock is first."""
        end_s = float(self.grant.not_after_s)
        return end_s if self.end_boot_s is None else min(end_s, wall_s + self.end_boot_s - boot_s)


class Ledger:
    """Applies entries; answers what they come to."""

    def __init__(self) -> None:
        self.grants: dict[str, Held] = {}
        self.revocations: dict[str, tuple[bytes, Revocation]] = {}
        self.void_before_s = 0.0
        self.void_why = ""
        self.seen_s = 0.0

    def apply(self, entry: Entry) -> None:
        """Takes one entry into account. Raises :class:`StateError` for one that cannot have been written."""
        self.seen_s = max(self.seen_s, entry.seen_s)
        match entry:
            case GrantAccepted():
                order, grant = _read(entry.order, Grant)
                self.grants.setdefault(grant.id, Held(entry.order, order, grant, entry.wall_s))
            case Used():
                self._apply_use(entry)
            case UsedBefore():
                if (held := self.grants.get(entry.grant_id)) is not None:
                    held.uses += entry.count
                    held.first_use_s, held.last_use_s = entry.first_s, entry.last_s
            case Ended():
                if (held := self.grants.get(entry.grant_id)) is not None:
                    held.is_ended = True
            case Revoked():
                _, revocation = _read(entry.order, Revocation)
                self.revocations.setdefault(revocation.grant_id, (entry.order, revocation))
            case Reviewed():
                order, review = _read(entry.order, Review)
                held = self.grants.get(review.grant_id)
                if held is not None and not held.has_review(entry.order):
                    held.reviews.append((entry.order, review))
            case Voided():
                self.void_before_s, self.void_why = entry.wall_s, entry.why
                for held in self.grants.values():
                    held.is_void = True
            case TimeSeen():
                pass
            case _:
                assert_never(entry)

    def _apply_use(self, entry: Used) -> None:
        held = self.grants.get(entry.grant_id)
        if held is None:
            return
        held.uses += 1
        held.last_use_s = entry.wall_s
        if held.first_use_s is None:
            held.first_use_s = entry.wall_s
        if held.grant.max_uses is not None:
            held.calls.add(entry.call_id)

    def state(self, held: Held, wall_s: float, boot_s: float) -> State:
        """What may be said about a grant now; only an ``active`` one opens anything."""
        if held.grant.id in self.revocations:
            return "revoked"
        if held.is_void:
            return "void"
        if held.has_ended(wall_s, boot_s):
            return "ended"
        if held.doubt is not None:
            return "unbacked"
        if held.end_boot_s is None:
            return "waiting"
        return "active" if held.has_use_left else "used-up"

    def is_in_force(self, held: Held, wall_s: float, boot_s: float) -> bool:
        """Whether calls that are open under it may go on; the last use may be spent."""
        return self.state(held, wall_s, boot_s) in ("active", "used-up")

    def forget(self, now_s: float) -> None:
        """Drops what nobody has to know any more at ``now_s``, which no clock set ahead may decide."""
        for grant_id, held in list(self.grants.items()):
            age_s = now_s - held.grant.not_after_s
            if age_s > (REMEMBER_UNREVIEWED_S if held.needs_review else REMEMBER_S):
                del self.grants[grant_id]

    def snapshot(self) -> Iterator[Entry]:
        """Entries that lead to what is known now; all of them by this time."""
        seen_s = self.seen_s
        for held in self.grants.values():
            if held.is_void:
                yield from _history(held, seen_s)
        if self.void_before_s:
            yield Voided(self.void_before_s, seen_s, self.void_why)
        for held in self.grants.values():
            if not held.is_void:
                yield from _history(held, seen_s)
        for data, _ in self.revocations.values():
            yield Revoked(seen_s, seen_s, data)
        yield TimeSeen(seen_s, seen_s)


def _history(held: Held, seen_s: float) -> Iterator[Entry]:
    grant_id = held.grant.id
    yield GrantAccepted(held.accepted_at_s, seen_s, held.data)
    if held.first_use_s is not None and held.last_use_s is not None:
        yield UsedBefore(seen_s, seen_s, grant_id, held.uses, held.first_use_s, held.last_use_s)
    if held.is_ended:
        yield Ended(seen_s, seen_s, grant_id)
    for data, _ in held.reviews:
        yield Reviewed(seen_s, seen_s, data)


def _read(data: bytes, kind: type[T]) -> tuple[Order, T]:
    try:
        order = decode_order(data)
    except OrderRefused as exc:
        raise StateError(f"the journal of grants holds an order that cannot be read: {exc}") from exc
    if not isinstance(order.body, kind):
        raise StateError(f"the journal of grants holds an order that is no {kind.__name__.lower()}")
    return order, order.body
