"""Whether a JSON Web Key and a certificate are of one key."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.errors import IdentityError
from sidecar.identity.jwk import check_same_key
from tests.fakes.certificates import DemoAuthority, rsa_key


def number(value: int, size: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(size, "big")).decode().rstrip("=")


def ec_members(key: ec.EllipticCurvePrivateKey, curve: str = "P-256", size: int = 32) -> dict[str, Any]:
    point = key.public_key().public_numbers()
    return {"kty": "EC", "crv": curve, "x": number(point.x, size), "y": number(point.y, size)}


def rsa_members() -> dict[str, Any]:
    numbers = rsa_key().public_key().public_numbers()
    return {"kty": "RSA", "n": number(numbers.n, 256), "e": number(numbers.e, 3)}


@pytest.fixture(scope="module")
def authority() -> DemoAuthority:
    return DemoAuthority()


def assert_refused(members: dict[str, Any], authority: DemoAuthority) -> None:
    with pytest.raises(IdentityError) as raised:
        check_same_key(members, authority.certificate)
    assert raised.value.rule == "X5-21"


def test_the_same_key(authority):
    check_same_key(ec_members(authority.key), authority.certificate)
    wide = ec.generate_private_key(ec.SECP384R1())
    check_same_key(ec_members(wide, "P-384", 48), DemoAuthority(key=wide).certificate)
    check_same_key(rsa_members(), DemoAuthority(key=rsa_key()).certificate)
    check_same_key(
        {**rsa_members(), "crv": "P-256"}, DemoAuthority(key=rsa_key()).certificate
    )  # means nothing there
    check_same_key(
        {"kty": "OKP", "crv": "Ed25519"}, DemoAuthority(key=ed25519.Ed25519PrivateKey.generate()).certificate
    )


def test_members_that_are_not_there_are_not_missed(authority):
    check_same_key({"kty": "EC"}, authority.certificate)


@pytest.mark.parametrize(
    "change",
    [{"kty": "RSA"}, {"kty": "OKP"}, {"kty": None}, {"crv": "P-384"}, {"crv": 1}, {"x": "AAAA"}, {"y": "AAAA"},
     {"x": ""}, {"x": 7}, {"x": None}, {"x": "a"}, {"x": "*"}, {"y": "\u00e9"}],
    ids=repr,
)  # fmt: skip
def test_another_key(authority, change):
    assert_refused({**ec_members(authority.key), **change}, authority)


def test_another_point_of_the_same_curve(authority):
    assert_refused(ec_members(DemoAuthority().key), authority)


def test_another_modulus_or_exponent():
    authority = DemoAuthority(key=rsa_key())
    assert_refused(
        {**rsa_members(), "n": number(rsa_key().public_key().public_numbers().n ^ 2, 256)}, authority
    )
    assert_refused({**rsa_members(), "e": "Aw"}, authority)
    assert_refused({**ec_members(DemoAuthority().key)}, authority)


def test_a_certificate_whose_key_cannot_be_read(authority):
    der = authority.certificate.public_bytes(Encoding.DER)
    unknown = der.replace(bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0209"))
    with pytest.raises(IdentityError) as raised:
        check_same_key({"kty": "EC"}, x509.load_der_x509_certificate(unknown))
    assert raised.value.rule == "KEY"
