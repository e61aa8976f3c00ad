"""Reading an SVID: chain and key fit each other, and no refusal shows the key."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import IdentityError
from sidecar.identity.spiffe_id import parse_workload_id
from sidecar.identity.svid import parse_svid, read_workload_id
from tests.fakes.certificates import HOUR, SECOND, START, DemoAuthority, key_pem, new_key, pem, rsa_key

WEB = "spiffe://demo.test/web"
AUTHORITY = DemoAuthority()
ISSUED = AUTHORITY.issue(WEB, serial=0x5F0C)


def refusal(chain: bytes, key: bytes, rule: str) -> str:
    with pytest.raises(IdentityError) as raised:
        parse_svid(chain, key)
    assert raised.value.rule == rule, (raised.value.rule, str(raised.value))
    message = str(raised.value)
    assert "\n" not in message
    for line in key.splitlines():
        assert len(line) < 8 or line.startswith(b"-----") or line.decode("latin-1") not in message
    return message


def test_an_svid():
    svid = parse_svid(ISSUED.chain_pem, ISSUED.key_pem)
    assert svid.spiffe_id == parse_workload_id(WEB)
    assert svid.chain == ISSUED.chain
    assert svid.private_key.public_key() == ISSUED.leaf.public_key()
    assert (svid.not_before, svid.not_after) == (START - 10 * SECOND, START + HOUR)
    assert svid.serial == "5f0c"


def test_a_chain_of_several_leaf_first():
    issued = DemoAuthority(parent=AUTHORITY).issue(WEB)
    assert parse_svid(issued.chain_pem, issued.key_pem).chain == issued.chain
    assert len(issued.chain) == 2


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate(), rsa_key()],
    ids=["p384", "ed25519", "rsa"],
)
def test_other_kinds_of_key(key):
    issued = AUTHORITY.issue(WEB, key=key)
    assert parse_svid(issued.chain_pem, issued.key_pem).chain == issued.chain


def test_the_key_stands_in_no_text_of_the_svid():
    svid = parse_svid(ISSUED.chain_pem, ISSUED.key_pem)
    assert "private" not in repr(svid).lower() and "private" not in str(svid).lower()


def test_whether_it_is_still_valid_is_not_asked_here():
    issued = AUTHORITY.issue(WEB, not_after=START - SECOND)
    assert parse_svid(issued.chain_pem, issued.key_pem).not_after == START - SECOND


def test_a_key_that_does_not_fit():
    assert "does not belong" in refusal(ISSUED.chain_pem, key_pem(new_key()), "KEY")
    assert "does not belong" in refusal(ISSUED.chain_pem, key_pem(rsa_key()), "KEY")


def test_a_chain_in_the_wrong_order():
    issued = DemoAuthority(parent=AUTHORITY).issue(WEB)
    refusal(pem(*reversed(issued.chain)), issued.key_pem, "X5-03")


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        ((), "X5-01"),
        ((WEB, WEB), "X5-01"),
        ((WEB, "https://demo.test"), "X5-01"),
        (("spiffe://demo.test",), "X5-03"),
        (("spiffe://demo.test/",), "ID-10"),
        (("spiffe://Demo.test/web",), "ID-05"),
        (("https://demo.test/web",), "ID-01"),
        ((b"spiffe://demo.test/web\x00",), "ID-08"),
    ],
)
def test_a_leaf_that_names_no_single_workload(names, rule):
    issued = AUTHORITY.issue(names)
    refusal(issued.chain_pem, issued.key_pem, rule)
    with pytest.raises(IdentityError) as raised:
        read_workload_id(issued.leaf)
    assert raised.value.rule == rule


def test_a_leaf_without_alternative_name():
    issued = AUTHORITY.issue(WEB, subject_alternative_name=None)
    refusal(issued.chain_pem, issued.key_pem, "X5-01")


@pytest.mark.parametrize(
    "chain",
    [b"", b"\n", b"x", ISSUED.chain_pem[:-30], ISSUED.chain_pem + b"x", ISSUED.key_pem,
     ISSUED.chain_pem + ISSUED.key_pem],
    ids=range(7),
)  # fmt: skip
def test_a_chain_that_cannot_be_read(chain):
    refusal(chain, ISSUED.key_pem, "FORM")


def test_a_leaf_whose_extensions_cannot_be_read():
    broken = (x509.UnrecognizedExtension(x509.KeyUsage.oid, b"\x31"), True)
    issued = AUTHORITY.issue(WEB, key_usage=broken)
    refusal(issued.chain_pem, issued.key_pem, "FORM")


def test_a_key_in_another_form_is_refused():
    key = ISSUED.private_key
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    traditional = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert "'ENCRYPTED PRIVATE KEY'" in refusal(ISSUED.chain_pem, encrypted, "FORM")
    assert "'EC PRIVATE KEY'" in refusal(ISSUED.chain_pem, traditional, "FORM")
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    refusal(ISSUED.chain_pem, der, "FORM")


def test_an_encrypted_key_under_the_wrong_label_is_refused():
    der = ISSUED.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    data = b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END PRIVATE KEY-----\n"
    assert "unencrypted" in refusal(ISSUED.chain_pem, data, "KEY")


@pytest.mark.parametrize("count", [0, 2])
def test_one_key_and_no_more(count):
    assert f"{count} private keys" in refusal(ISSUED.chain_pem, ISSUED.key_pem * count, "KEY")


def test_a_damaged_key_is_refused_without_a_trace_of_it():
    lines = ISSUED.key_pem.splitlines(keepends=True)
    with pytest.raises(IdentityError) as raised:
        parse_svid(ISSUED.chain_pem, lines[0] + lines[1] + lines[-1])
    assert raised.value.__cause__ is None and raised.value.__suppress_context__


def test_a_leaf_whose_key_cannot_be_read():
    """An unknown kind of key in the leaf: nothing can belong to it."""
    der = ISSUED.leaf.public_bytes(Encoding.DER)
    ec_public_key = bytes.fromhex("06072a8648ce3d0201")
    leaf = x509.load_der_x509_certificate(der.replace(ec_public_key, bytes.fromhex("06072a8648ce3d0209")))
    refusal(pem(leaf), ISSUED.key_pem, "KEY")


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([ISSUED.chain_pem, ISSUED.key_pem, b""]),
    st.sampled_from([ISSUED.key_pem, ISSUED.chain_pem, b""]),
    st.integers(0, 1200),
    st.binary(max_size=3),
    st.booleans(),
)
def test_anything_gives_an_svid_or_an_identity_error(chain, key, place, junk, in_chain):
    if in_chain:
        chain = chain[:place] + junk + chain[place + 1 :]
    else:
        key = key[:place] + junk + key[place + 1 :]
    try:
        svid = parse_svid(chain, key)
    except IdentityError:
        return
    assert svid.private_key.public_key() == svid.chain[0].public_key()
