"""A book of grants in a directory of its own, with everything that it tells of written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sidecar.breakglass.signers import Signers
from sidecar.breakglass.store import GrantBook, open_grant_book
from sidecar.breakglass.verify import GrantRules
from sidecar.errors import OrderRefused
from sidecar.identity.spiffe_id import SpiffeId
from tests.fakes.clock import FakeClock
from tests.fakes.orders import ORDERS, signers_of


class Desktop:
    """Opens books one after the other on the same journal, as restarts do."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "grants"
        self.clock = FakeClock()
        self.signers: Signers = signers_of("oncall", "lead", "third")
        self.rules = GrantRules(3600, 1)
        self.events: list[tuple[str, dict[str, Any]]] = []

    async def open(self, own_id: SpiffeId = ORDERS, at_least_entries: int | None = 0) -> GrantBook:
        return await open_grant_book(
            self.path,
            own_id=own_id,
            signers=self.signers,
            rules=self.rules,
            clock=self.clock,
            on_event=self.hear,
            at_least_entries=at_least_entries,
        )

    def hear(self, event: str, body: dict[str, Any]) -> None:
        self.events.append((event, body))

    def heard(self, event: str) -> list[dict[str, Any]]:
        return [body for name, body in self.events if name == event]


async def code_of(book: GrantBook, data: bytes) -> str:
    """The code that an order is refused with, or ``accepted`` or ``known``."""
    try:
        return str((await book.submit_order(data))["result"])
    except OrderRefused as exc:
        return exc.code
