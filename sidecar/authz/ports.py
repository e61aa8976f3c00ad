"""What the decision asks of others, as ports: the grants in force. Answers are immediate; no I/O behind them."""

from __future__ import annotations

from typing import Protocol

from sidecar.identity.route import Segments

GrantInForce = tuple[str, float]
"""A grant's id and its end in Unix seconds. A plain tuple: what implements the port may not import this package."""


class Grants(Protocol):
    """The grants that this sidecar has accepted."""

    @property
    def generation(self) -> int:
        """Changes whenever a grant is accepted, revoked or ends, so that open calls can be judged anew."""
        ...

    def find(self, caller: str, method: str, segments: Segments, wall_s: float) -> GrantInForce | None:
        """A grant in force for exactly this caller, method and path, the one that ends last; None if there is none.

        One with a number of uses counts only while a use is left.
        """
        ...

    def is_in_force(self, grant_id: str, wall_s: float) -> bool:
        """Whether a call that is open under ``grant_id`` may go on: it has neither ended nor been revoked."""
        ...


class NoGrants:
    """For where there are none: explaining a policy file, and a sidecar without signers."""

    generation = 0

    def find(self, caller: str, method: str, segments: Segments, wall_s: float) -> GrantInForce | None:
        return None

    def is_in_force(self, grant_id: str, wall_s: float) -> bool:
        return False
