"""Grants as the admin socket, records and ``break-glass show`` tell of them: JSON's types, no secret.

Pure.
"""

from __future__ import annotations

from typing import Any

from sidecar.breakglass.grant import Grant
from sidecar.breakglass.ledger import REVIEW_WITHIN_S, Held, Ledger
from sidecar.clock import rfc3339_s


def describe_grant(grant: Grant) -> dict[str, Any]:
    """What the payload says."""
    return {
        "kind": "grant",
        "grant": grant.id,
        "subject": str(grant.subject),
        "audience": [str(each) for each in grant.audience],
        "wide": grant.wide,
        "allow": [{"methods": list(each.methods), "path": each.path.text} for each in grant.allow],
        "reason": grant.reason,
        "requester": grant.requester,
        "signed_at": rfc3339_s(grant.signed_at_s),
        "not_before": rfc3339_s(grant.not_before_s),
        "not_after": rfc3339_s(grant.not_after_s),
        "max_uses": grant.max_uses,
    }


def describe_held(held: Held, ledger: Ledger, wall_s: float, boot_s: float) -> dict[str, Any]:
    """What the payload says, and what became of it here."""
    revocation = ledger.revocations.get(held.grant.id)
    return {
        **describe_grant(held.grant),
        "state": ledger.state(held, wall_s, boot_s),
        "doubt": held.doubt,
        "signers": list(held.signers),
        "accepted_at": rfc3339_s(held.accepted_at_s),
        "uses": held.uses,
        "first_use": None if held.first_use_s is None else rfc3339_s(held.first_use_s),
        "last_use": None if held.last_use_s is None else rfc3339_s(held.last_use_s),
        "revoked": revocation
        and {
            "by": revocation[1].signer,
            "reason": revocation[1].reason,
            "signed_at": rfc3339_s(revocation[1].signed_at_s),
        },
        "review": _review_state(held, wall_s),
        "reviews": [
            {"by": review.signer, "note": review.note, "signed_at": rfc3339_s(review.signed_at_s)}
            for _, review in held.reviews
        ],
    }


def _review_state(held: Held, wall_s: float) -> str:
    """``none`` (never used), ``done``, ``due`` or ``overdue``."""
    if held.reviews:
        return "done"
    if held.uses == 0:
        return "none"
    return "overdue" if wall_s > held.grant.not_after_s + REVIEW_WITHIN_S else "due"
