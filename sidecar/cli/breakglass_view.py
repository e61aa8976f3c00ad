"""Orders and grants as people read them: every member, times with how far away they are."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sidecar.breakglass.grant import Grant, Review, Revocation
from sidecar.breakglass.listing import describe_grant
from sidecar.breakglass.order import Order
from sidecar.breakglass.signers import Signers, write_signer
from sidecar.breakglass.sshsig import armor, fingerprint, verify_message
from sidecar.breakglass.verify import verify_people
from sidecar.clock import rfc3339_s

TIMES = frozenset({"signed_at", "not_before", "not_after", "accepted_at", "first_use", "last_use"})
LIST_HEADINGS = ("grant", "state", "for", "opens", "until", "uses", "by", "reason", "review")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature that fits the payload. ``person`` is None where no signers file was at hand."""

    key: bytes
    blob: bytes
    person: str | None


def check_signatures(order: Order, signers: Signers | None) -> list[Signature]:
    """The order's signatures, each proven to fit its payload; with ``signers`` also whose they are.

    Raises OrderRefused.
    """
    keys = [verify_message(order.payload, blob) for blob in order.signatures]
    names = verify_people(order, signers) if signers is not None else [None] * len(keys)
    return [Signature(key, blob, name) for key, blob, name in zip(keys, order.signatures, names, strict=True)]


def describe_order(order: Order) -> dict[str, Any]:
    """What the payload says; JSON's types."""
    match order.body:
        case Grant() as grant:
            return describe_grant(grant)
        case Revocation() as revocation:
            return {
                "kind": "revocation",
                "grant": revocation.grant_id,
                "reason": revocation.reason,
                "signer": revocation.signer,
                "signed_at": rfc3339_s(revocation.signed_at_s),
            }
        case Review() as review:
            return {
                "kind": "review",
                "grant": review.grant_id,
                "note": review.note,
                "signer": review.signer,
                "signed_at": rfc3339_s(review.signed_at_s),
            }


def describe_file(order: Order, signatures: list[Signature]) -> dict[str, Any]:
    """As :func:`describe_order`, with what another program needs to verify it."""
    return {
        **describe_order(order),
        "payload": base64.b64encode(order.payload).decode(),
        "signatures": [
            {
                "person": each.person,
                "fingerprint": fingerprint(each.key),
                "public_key": write_signer(each.person or "NAME", each.key).split(" ", 2)[2].rstrip("\n"),
                "sshsig": armor(each.blob),
            }
            for each in signatures
        ],
    }


def order_rows(order: Order, signatures: list[Signature], now_s: float) -> list[tuple[str, str]]:
    """Every member of the payload, then who signed it."""
    rows = list(_rows(describe_order(order), now_s))
    for each in signatures:
        rows.append(("signed by", f"{each.person or 'somebody with the key'} {fingerprint(each.key)}"))
    return rows


def held_rows(held: Mapping[str, Any], now_s: float) -> list[tuple[str, str]]:
    """Every member of what the running sidecar says about one grant."""
    return list(_rows(held, now_s))


def list_row(held: Mapping[str, Any], now_s: float) -> tuple[str, ...]:
    """One grant in a line, for :data:`LIST_HEADINGS`."""
    limit = held.get("max_uses")
    uses = str(held.get("uses")) + ("" if limit is None else f" of {limit}")
    return (
        _text(held.get("grant")),
        _text(held.get("state")),
        _text(held.get("subject")),
        _targets(held.get("allow")),
        moment(_text(held.get("not_after")), now_s),
        uses,
        _text(held.get("requester")),
        _text(held.get("reason")),
        _text(held.get("review")),
    )


def moment(text: str, now_s: float) -> str:
    """An RFC 3339 time and how far away it is: ``2026-11-24T12:15:00Z (in 14 min)``."""
    try:
        distance_s = datetime.fromisoformat(text).timestamp() - now_s
    except ValueError:
        return text
    if abs(distance_s) < 1:
        return f"{text} (now)"
    size = _span(abs(distance_s))
    return f"{text} (in {size})" if distance_s > 0 else f"{text} ({size} ago)"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 120 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def _rows(members: Mapping[str, Any], now_s: float) -> Iterator[tuple[str, str]]:
    for name, value in members.items():
        if value is None or value == []:
            continue
        if name == "allow":
            yield from (("allow", _target(each)) for each in value)
        elif name in TIMES:
            yield name, moment(_text(value), now_s)
        elif isinstance(value, list):
            yield from ((name, _text(each)) for each in value)
        else:
            yield name, _text(value)


def _targets(value: Any) -> str:
    return "; ".join(_target(each) for each in value) if isinstance(value, list) else "-"


def _target(value: Any) -> str:
    return f"{','.join(value['methods'])} {value['path']}" if isinstance(value, dict) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    return "-" if value is None else str(value)
