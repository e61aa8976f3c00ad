"""The one encoding of signed orders, and its strict reading. Pure.

An order file (``*.bg``) is a msgpack array: the word :data:`MAGIC`, the payload as bytes, and the signatures
over exactly these bytes. A payload is a map whose members stand in one fixed order. What is read is written
again and has to give the same bytes, so that nobody can read a payload differently from the one who signed
it: no doubled or unknown member, no long form of a number, no float, no extension survives that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sidecar.breakglass.grant import (
    MAX_AUDIENCE,
    MAX_METHODS,
    MAX_TARGETS,
    MAX_USES,
    Grant,
    Review,
    Revocation,
    Target,
    make_target,
    parse_grant_id,
    parse_person,
)
from sidecar.breakglass.packing import Fields, malformed, pack, unpack
from sidecar.errors import ConfigurationError, IdentityError, OrderRefused
from sidecar.identity.spiffe_id import SpiffeId, parse_trust_domain, parse_workload_id

MAGIC: Final = "sidecar-order-1"
PAYLOAD_VERSION: Final = 1

MAX_ORDER_BYTES: Final = 16 << 10
MAX_SIGNATURES: Final = 8

Body = Grant | Revocation | Review


@dataclass(frozen=True, slots=True)
class Order:
    """A payload, what it says, and the signatures over it (SSHSIG blobs), which nobody has checked yet."""

    payload: bytes
    body: Body
    signatures: tuple[bytes, ...]


def encode_payload(body: Body) -> bytes:
    """The one encoding of ``body``: what is signed."""
    return pack({"v": PAYLOAD_VERSION, **_MEMBERS[type(body)](body)})


def decode_payload(payload: bytes) -> Body:
    """What ``payload`` says. Raises OrderRefused (``malformed``)."""
    fields = unpack(payload)
    if type(fields) is not dict:
        raise malformed("the payload is no map")
    kind = fields.get("kind")
    if fields.get("v") != PAYLOAD_VERSION or type(fields.get("v")) is not int:
        raise malformed(f"the payload has version {fields.get('v')!r}; known is {PAYLOAD_VERSION}")
    if type(kind) is not str or kind not in _READERS:
        raise malformed(f"the payload is of kind {kind!r}; known are {', '.join(_READERS)}")
    body = _READERS[kind](Fields(fields))
    if encode_payload(body) != payload:
        raise malformed("the payload has members that are not known or not written in their one form")
    return body


def encode_order(payload: bytes, signatures: tuple[bytes, ...]) -> bytes:
    """The bytes of an order file."""
    return pack([MAGIC, payload, list(signatures)])


def decode_order(data: bytes) -> Order:
    """The order in ``data``; its signatures are not judged here.

    Raises OrderRefused: ``too-large`` beyond 16 KiB, else ``malformed``. Every limit on size, depth and
    number holds before anything is made of it.
    """
    if len(data) > MAX_ORDER_BYTES:
        raise OrderRefused("too-large", f"an order has at most {MAX_ORDER_BYTES} bytes")
    parts = unpack(data)
    if type(parts) is not list or len(parts) != 3 or parts[0] != MAGIC:
        raise malformed(f"this is no order: it does not begin with {MAGIC!r}")
    _, payload, signatures = parts
    if type(payload) is not bytes or type(signatures) is not list:
        raise malformed("an order has a payload of bytes and a list of signatures")
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise malformed(f"an order has 1 to {MAX_SIGNATURES} signatures, got {len(signatures)}")
    if any(type(signature) is not bytes for signature in signatures):
        raise malformed("a signature is bytes")
    if encode_order(payload, tuple(signatures)) != data:
        raise malformed("the order is not written in its one form")
    return Order(payload, decode_payload(payload), tuple(signatures))


def _read_grant(fields: Fields) -> Grant:
    audience: tuple[SpiffeId, ...] = ()
    wide = None
    if fields.has("audience") == fields.has("wide"):
        raise malformed("a grant has an audience or is wide, exactly one of the two")
    if fields.has("audience"):
        audience = tuple(_workload("audience", each) for each in fields.array("audience", MAX_AUDIENCE))
    else:
        wide = _trust_domain(fields.text("wide"))
    if len(set(audience)) != len(audience):
        raise malformed("the audience names a sidecar twice")
    grant = Grant(
        id=_id(fields.text("id")),
        audience=audience,
        wide=wide,
        subject=_workload("subject", fields.text("subject")),
        allow=tuple(_read_target(each) for each in fields.array("allow", MAX_TARGETS)),
        reason=fields.sentence("reason"),
        requester=_person(fields.text("requester")),
        signed_at_s=fields.seconds("signed_at"),
        not_before_s=fields.seconds("not_before"),
        not_after_s=fields.seconds("not_after"),
        max_uses=fields.integer("max_uses", 1, MAX_USES) if fields.has("max_uses") else None,
    )
    if not grant.signed_at_s <= grant.not_before_s < grant.not_after_s:
        raise malformed("signed_at, not_before and not_after are not in this order")
    if grant.max_uses is not None and len(audience) != 1:
        raise malformed("a grant with max_uses names exactly one sidecar: two could not count together")
    return grant


def _read_target(value: object) -> Target:
    if type(value) is not dict:
        raise malformed("a member of allow has to be a map")
    fields = Fields(value)
    methods = fields.array("methods", MAX_METHODS)
    texts = [method for method in methods if type(method) is str]
    if len(texts) != len(methods):
        raise malformed("methods are text")
    try:
        return make_target(texts, fields.text("path"))
    except ConfigurationError as exc:
        raise malformed(str(exc)) from exc


def _read_revocation(fields: Fields) -> Revocation:
    return Revocation(
        grant_id=_id(fields.text("grant")),
        reason=fields.sentence("reason"),
        signer=_person(fields.text("signer")),
        signed_at_s=fields.seconds("signed_at"),
    )


def _read_review(fields: Fields) -> Review:
    return Review(
        grant_id=_id(fields.text("grant")),
        note=fields.sentence("note"),
        signer=_person(fields.text("signer")),
        signed_at_s=fields.seconds("signed_at"),
    )


def _grant_members(body: Body) -> dict[str, object]:
    assert isinstance(body, Grant)
    members: dict[str, object] = {"kind": "grant", "id": body.id}
    if body.wide is None:
        members["audience"] = [str(each) for each in body.audience]
    else:
        members["wide"] = body.wide
    members |= {
        "subject": str(body.subject),
        "allow": [{"methods": list(each.methods), "path": each.path.text} for each in body.allow],
        "reason": body.reason,
        "requester": body.requester,
        "signed_at": body.signed_at_s,
        "not_before": body.not_before_s,
        "not_after": body.not_after_s,
    }
    if body.max_uses is not None:
        members["max_uses"] = body.max_uses
    return members


def _revocation_members(body: Body) -> dict[str, object]:
    assert isinstance(body, Revocation)
    return {
        "kind": "revocation",
        "grant": body.grant_id,
        "reason": body.reason,
        "signer": body.signer,
        "signed_at": body.signed_at_s,
    }


def _review_members(body: Body) -> dict[str, object]:
    assert isinstance(body, Review)
    return {
        "kind": "review",
        "grant": body.grant_id,
        "note": body.note,
        "signer": body.signer,
        "signed_at": body.signed_at_s,
    }


_READERS: Final[dict[str, Callable[[Fields], Body]]] = {
    "grant": _read_grant,
    "revocation": _read_revocation,
    "review": _read_review,
}
_MEMBERS: Final[dict[type, Callable[[Body], dict[str, object]]]] = {
    Grant: _grant_members,
    Revocation: _revocation_members,
    Review: _review_members,
}


def _id(text: str) -> str:
    try:
        return parse_grant_id(text)
    except ConfigurationError as exc:
        raise malformed(str(exc)) from exc


def _person(text: str) -> str:
    try:
        return parse_person(text)
    except ConfigurationError as exc:
        raise malformed(str(exc)) from exc


def _workload(name: str, value: object) -> SpiffeId:
    if type(value) is not str:
        raise malformed(f"{name} has to be a SPIFFE ID")
    try:
        return parse_workload_id(value)
    except IdentityError as exc:
        raise malformed(f"{name}: {exc}") from exc


def _trust_domain(text: str) -> str:
    try:
        return parse_trust_domain(text)
    except IdentityError as exc:
        raise malformed(f"wide: {exc}") from exc
