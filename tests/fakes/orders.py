"""People who sign, and orders as they would make them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.breakglass.grant import Grant, Review, Revocation, Target, parse_target
from sidecar.breakglass.order import encode_order, encode_payload
from sidecar.breakglass.signers import Signers
from sidecar.breakglass.sshsig import sign_message
from sidecar.identity.spiffe_id import SpiffeId, parse_workload_id
from tests.fakes.clock import FakeClock

ORDERS = parse_workload_id("spiffe://demo.test/orders")
OTHER = parse_workload_id("spiffe://demo.test/other")
WEB = parse_workload_id("spiffe://demo.test/web")
DELETE_ORDER: Target = parse_target("DELETE /orders/*")


def key_of(name: str) -> Ed25519PrivateKey:
    """The same key for the same name in every run. ``oncall#2`` is another key of the same person."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def public_key_of(name: str) -> bytes:
    return key_of(name).public_key().public_bytes_raw()


def signers_of(*names: str) -> Signers:
    """A signers file with these keys; what follows ``#`` tells two keys of one person apart."""
    return Signers({public_key_of(name): name.partition("#")[0] for name in names})


def make_grant(clock: FakeClock, *, ttl_s: int = 900, **changes: Any) -> Grant:
    """A grant of ``oncall`` for ``web`` to delete an order of ``orders``, from now on."""
    now_s = int(clock.wall_s())
    audience: tuple[SpiffeId, ...] = (ORDERS,)
    grant = Grant(
        id="0123456789abcdef0123456789abcdef",
        audience=audience,
        wide=None,
        subject=WEB,
        allow=(DELETE_ORDER,),
        reason="INC-4711 stuck order",
        requester="oncall",
        signed_at_s=now_s,
        not_before_s=now_s,
        not_after_s=now_s + ttl_s,
    )
    return replace(grant, **changes)


def sign_order(body: Grant | Revocation | Review, *names: str) -> bytes:
    """The order file, signed by these keys in this order."""
    return sign_payload(encode_payload(body), *names)


def sign_payload(payload: bytes, *names: str) -> bytes:
    return encode_order(payload, tuple(sign_message(key_of(name), payload) for name in names))


def make_revocation(clock: FakeClock, grant_id: str, signer: str = "lead") -> Revocation:
    return Revocation(grant_id, "it was the wrong order", signer, int(clock.wall_s()))


def make_review(clock: FakeClock, grant_id: str, signer: str = "lead") -> Review:
    return Review(grant_id, "one order deleted, as asked", signer, int(clock.wall_s()))
