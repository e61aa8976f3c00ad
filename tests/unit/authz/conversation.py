"""Short ways to say a policy, a caller, a grant and a call in the tests of the decision."""

from __future__ import annotations

import json
from typing import Any

from sidecar.authz.call import Call
from sidecar.authz.decide import Authorizer
from sidecar.authz.ports import GrantInForce
from sidecar.identity.peer import Peer
from sidecar.identity.route import Segments, split_path
from sidecar.identity.spiffe_id import parse_workload_id
from sidecar.policy.loader import parse_policy
from sidecar.policy.model import Policy
from tests.fakes.clock import FakeClock

WEB = "spiffe://demo.test/web"
ORDERS = {"orders:read": [{"methods": ["GET"], "paths": ["/orders/**"]}]}


def policy_of(identities: list[dict[str, Any]] | None = None, **sections: Any) -> Policy:
    """A policy in which web may read orders, but for what is said otherwise; JSON is YAML too."""
    document = {
        "version": "1",
        "owners": {"team": {"contact": "#team"}},
        "scopes": ORDERS,
        "identities": [identity()] if identities is None else identities,
        **sections,
    }
    return parse_policy(json.dumps(document).encode(), "policy.yaml")


def identity(id_text: str = WEB, **members: Any) -> dict[str, Any]:
    return {"id": id_text, "owner": "team", "kind": "service", "scopes": ["orders:read"], **members}


def peer_of(id_text: str = WEB, not_after_s: float = 4e9) -> Peer:
    return Peer(parse_workload_id(id_text), id_text, "5f", "ab", not_after_s, "10.0.0.7", 1)


def call_of(text: str = "GET /orders/42", caller: Peer | None = None, **members: Any) -> Call:
    method, path = text.split()
    return Call(caller or peer_of(), method, path, split_path(path), **members)


class FakeGrants:
    """Finds ``grant`` for every call, or nothing; remembers what it was asked."""

    def __init__(self, grant: GrantInForce | None = None) -> None:
        self.grant = grant
        self.generation = 0
        self.asked: list[tuple[str, str, Segments]] = []

    def find(self, caller: str, method: str, segments: Segments, wall_s: float) -> GrantInForce | None:
        self.asked.append((caller, method, segments))
        return self.grant if self.grant is not None and wall_s < self.grant[1] else None

    def is_in_force(self, grant_id: str, wall_s: float) -> bool:
        return self.grant is not None and self.grant[0] == grant_id and wall_s < self.grant[1]


class World:
    """An authorizer with everything around it in the test's hands."""

    def __init__(self, policy: Policy | None = None, grant: GrantInForce | None = None) -> None:
        self.clock = FakeClock()
        self.grants = FakeGrants(grant)
        self.authorizer = Authorizer(policy or policy_of(), self.grants, self.clock)

    def ask(self, text: str = "GET /orders/42", caller: Peer | None = None, **members: Any) -> str:
        """``allow REASON`` or ``deny REASON``."""
        verdict = self.authorizer.decide(call_of(text, caller, **members))
        return f"{verdict.effect} {verdict.reason}"
