"""JSON Web Keys as far as bundles need them: is this the key of that certificate? Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sidecar.errors import IdentityError

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def check_same_key(key: Mapping[str, Any], certificate: x509.Certificate) -> None:
    """Raises :class:`IdentityError` if what the JWK ``key`` says of itself is not true of ``certificate``.

    RFC 7517, section 4.7: an entry that shows one key and carries another has no clear reading. Members that it does
    not have are not missed, for only the certificate is used.
    """
    try:
        public = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise IdentityError("KEY", "the key of the certificate in 'x5c' cannot be read") from exc
    if isinstance(public, ec.EllipticCurvePublicKey):
        point = public.public_numbers()
        kind, curve = "EC", _CURVES.get(public.curve.name, public.curve.name)
        numbers = {"x": point.x, "y": point.y}
    elif isinstance(public, rsa.RSAPublicKey):
        modulus = public.public_numbers()
        kind, curve = "RSA", None
        numbers = {"n": modulus.n, "e": modulus.e}
    else:
        kind, curve, numbers = "OKP", None, {}
    if key.get("kty") != kind or (curve is not None and key.get("crv", curve) != curve):
        raise IdentityError("X5-21", "the certificate in 'x5c' has a key of another kind than the entry")
    for name, number in numbers.items():
        if name in key and _parse_number(key[name]) != number:
            raise IdentityError("X5-21", f"the certificate in 'x5c' has another key: {name!r} differs")


def _parse_number(text: Any) -> int | None:
    """The number that base64url ``text`` spells (RFC 7518, section 6); None if it spells none."""
    if not isinstance(text, str):
        return None
    try:
        octets = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(octets, "big")
