"""What has to hold before an order counts: who signed it, for which sidecar, for when. Pure.

Decoding comes first (:mod:`sidecar.breakglass.order`), what this sidecar already knows comes after
(:mod:`sidecar.breakglass.store`). Codes are stable; they go into records and metrics:

``malformed``, ``too-large``, ``no-signers``, ``signature``, ``unknown-signer``, ``wrong-signer``,
``duplicate-signer``, ``self-approval``, ``approvals``, ``audience``, ``too-long``, ``too-old``, ``not-yet``,
``expired``; and from the store ``revoked``, ``changed``, ``void``, ``clock``, ``capacity``,
``unknown-grant``, ``not-ended``, ``self-review``, ``not-in-force``, ``used-up``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sidecar.breakglass.grant import Grant, Review, Revocation
from sidecar.breakglass.order import Order
from sidecar.breakglass.signers import Signers
from sidecar.breakglass.sshsig import fingerprint, verify_message
from sidecar.errors import OrderRefused
from sidecar.identity.spiffe_id import SpiffeId

HARD_CEILING_S: Final = 4 * 3600
MAX_AGE_S: Final = 24 * 3600
SKEW_S: Final = 30


@dataclass(frozen=True, slots=True)
class GrantRules:
    """The receiving side's own bounds: longest life in seconds, and how many people have to sign."""

    max_ttl_s: float
    approvals: int


def verify_grant(
    order: Order, signers: Signers, own_id: SpiffeId, now_s: float, rules: GrantRules
) -> tuple[str, ...]:
    """Who signed the grant in ``order``, the requester first, if it may count on the sidecar ``own_id`` now.

    Raises OrderRefused with the first step that fails. ``now_s`` is the wall clock in Unix seconds. The order
    of the steps is part of the contract: nothing about a grant is believed before its signatures are.
    """
    grant = order.body
    if not isinstance(grant, Grant):
        raise OrderRefused("malformed", "the order is no grant")
    # 1. size, shape, version, one form: done by decode_order
    # 2. enough signatures over these bytes, by different people, the requester being the first
    names = verify_people(order, signers)
    if names[0] != grant.requester:
        raise OrderRefused(
            "wrong-signer", f"the grant is {grant.requester!r}'s, but {names[0]!r} signed it first"
        )
    if grant.requester in names[1:]:
        raise OrderRefused("self-approval", f"{grant.requester!r} approved the grant that is his or her own")
    if len(set(names)) != len(names):
        raise OrderRefused("duplicate-signer", "one person signed twice; approvals are counted by people")
    if len(names) < max(rules.approvals, 1):
        raise OrderRefused(
            "approvals", f"the grant has {len(names)} of the {rules.approvals} signatures that it needs here"
        )
    # 3. meant for this sidecar
    if not grant.is_for(own_id):
        raise OrderRefused("audience", f"the grant is not for {own_id}")
    # 4. times
    verify_times(grant, now_s, rules.max_ttl_s)
    return names


def verify_people(order: Order, signers: Signers) -> tuple[str, ...]:
    """Whose signatures the order carries, in order. Each has to fit and to be by somebody who may sign.

    One signature that does not is a refusal, even if the others were enough: nobody knows what it is for.
    Raises OrderRefused.
    """
    if not signers.people:
        raise OrderRefused("no-signers", "this sidecar has no signers, so it accepts no orders")
    names: list[str] = []
    keys = [verify_message(order.payload, signature) for signature in order.signatures]
    for key in keys:
        name = signers.find(key)
        if name is None:
            raise OrderRefused("unknown-signer", f"the key {fingerprint(key)} is not in the signers file")
        names.append(name)
    return tuple(names)


def verify_times(grant: Grant, now_s: float, max_ttl_s: float) -> None:
    """Whether the grant is short, fresh and now.

    Skew is allowed to its beginning only. Raises OrderRefused.
    """
    ceiling_s = min(max_ttl_s, HARD_CEILING_S)
    life_s = grant.not_after_s - grant.not_before_s
    if life_s > ceiling_s:
        raise OrderRefused("too-long", f"the grant lasts {life_s} s; this sidecar accepts {ceiling_s:g} s")
    if now_s >= grant.not_after_s:
        raise OrderRefused("expired", "the grant has ended")
    if now_s - grant.signed_at_s > MAX_AGE_S:
        raise OrderRefused("too-old", f"the grant was signed more than {MAX_AGE_S} s ago")
    if now_s < grant.not_before_s - SKEW_S:
        raise OrderRefused("not-yet", "the grant has not begun, or the clocks differ by more than 30 s")


def verify_single(order: Order, signers: Signers) -> str:
    """Who signed a revocation or review: one person, the one that it names. Raises OrderRefused."""
    body = order.body
    if not isinstance(body, Revocation | Review):
        raise OrderRefused("malformed", "the order is neither revocation nor review")
    names = verify_people(order, signers)
    if len(names) != 1:
        raise OrderRefused("malformed", f"the order needs one signature, got {len(names)}")
    if names[0] != body.signer:
        raise OrderRefused("wrong-signer", f"the order is {body.signer!r}'s, but {names[0]!r} signed it")
    return names[0]
