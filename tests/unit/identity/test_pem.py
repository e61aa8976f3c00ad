"""PEM blocks: one label, nothing around them."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import IdentityError
from sidecar.identity.pem import CERTIFICATE, PRIVATE_KEY, load_certificate, parse_blocks, parse_certificates
from tests.fakes.certificates import DemoAuthority, pem

SECRET = b"c2VjcmV0IG1hdGVyaWFs"


def block(content: bytes, label: str = CERTIFICATE) -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (
        label.encode(),
        base64.encodebytes(content),
        label.encode(),
    )


def refusal(data: bytes, label: str = CERTIFICATE) -> str:
    with pytest.raises(IdentityError) as raised:
        parse_blocks(data, label)
    assert raised.value.rule == "FORM"
    return str(raised.value)


@pytest.mark.parametrize("data", [b"", b" ", b"\n\n", b"\r\n\t"])
def test_white_space_holds_no_blocks(data):
    assert parse_blocks(data, CERTIFICATE) == []


def test_blocks_come_in_their_order():
    assert parse_blocks(block(b"one") + b"\n\n" + block(b"two" * 50), CERTIFICATE) == [b"one", b"two" * 50]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=repr)
def test_any_line_end(end):
    data = block(b"one" * 40).replace(b"\n", end)
    assert parse_blocks(data, CERTIFICATE) == [b"one" * 40]
    assert parse_blocks(data.strip(), CERTIFICATE) == [b"one" * 40]


@pytest.mark.parametrize(
    "data",
    [
        b"junk\n" + block(b"one"),
        block(b"one") + b"junk",
        block(b"one") + b"junk\n" + block(b"two"),
        block(b"one") + b"\x00",
        b"# comment\n" + block(b"one"),
        b"-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----x\n",
        b"----BEGIN CERTIFICATE-----\n",
        b"\xef\xbb\xbf" + block(b"one"),
        base64.encodebytes(b"one"),
    ],
    ids=repr,
)
def test_something_else_beside_blocks(data):
    assert "something else" in refusal(data)


@pytest.mark.parametrize("label", ["PRIVATE KEY", "TRUSTED CERTIFICATE", "X509 CRL", "certificate"])
def test_a_block_of_another_label(label):
    assert refusal(block(b"one") + block(b"two", label))


@pytest.mark.parametrize(
    "data",
    [
        b"-----BEGIN CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\n" + SECRET,
        b"-----BEGIN CERTIFICATE-----\n" + SECRET + b"\n-----END PRIVATE KEY-----\n",
        block(b"one")[:-5],
        block(b"one")[:-10] + block(b"two"),
    ],
    ids=repr,
)
def test_a_block_that_is_cut_off(data):
    assert refusal(data)


@pytest.mark.parametrize(
    "body",
    [
        b"a",
        b"ab",
        b"abc",
        b"ab=c",
        b"====",
        b"a-_=",
        b"ab*=",
        b"abcd=",
        b"abcd====",
        b"abcdab=",
        b"aB==",
        b"ab==",
    ],
)
def test_a_body_that_is_not_base64(body):
    assert "base64" in refusal(b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    "data", [SECRET, block(SECRET, "PRIVATE KEY"), b"-----BEGIN CERTIFICATE-----\n*" + SECRET]
)
def test_no_refusal_shows_what_was_read(data):
    message = refusal(data)
    assert SECRET.decode() not in message and base64.b64encode(SECRET).decode() not in message


def test_certificates_come_back_as_they_went_in():
    one, two = DemoAuthority().certificate, DemoAuthority().certificate
    assert parse_certificates(pem(one, two)) == [one, two]


def test_at_least_one_certificate():
    with pytest.raises(IdentityError, match="no certificate"):
        parse_certificates(b"\n")


def test_der_that_is_no_certificate_or_has_something_behind_it():
    der = parse_blocks(pem(DemoAuthority().certificate), CERTIFICATE)[0]
    for damaged in (b"", b"\x30\x00", der[:-1], der + b"\x00", der + der, b"\x30" + der):
        with pytest.raises(IdentityError) as raised:
            load_certificate(damaged)
        assert raised.value.rule == "FORM"


def test_a_certificate_of_a_version_that_nobody_knows():
    der = parse_blocks(pem(DemoAuthority().certificate), CERTIFICATE)[0]
    with pytest.raises(IdentityError, match="InvalidVersion"):
        load_certificate(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"))


def test_a_certificate_whose_extensions_cannot_be_read():
    broken = (x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x05\x86\x10a"), False)
    with pytest.raises(IdentityError, match="cannot be read"):
        parse_certificates(pem(DemoAuthority(subject_alternative_name=broken).certificate))


def test_a_certificate_with_a_name_of_a_kind_that_the_library_does_not_read():
    odd = (x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x02\xa3\x00"), False)
    with pytest.raises(IdentityError, match="cannot be read"):
        parse_certificates(pem(DemoAuthority(subject_alternative_name=odd).certificate))


_DER = parse_blocks(pem(DemoAuthority().certificate), CERTIFICATE)[0]


@given(st.integers(0, len(_DER) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_a_certificate_or_an_identity_error(place, byte):
    data = bytearray(_DER)
    data[place] = byte
    try:
        load_certificate(bytes(data))
    except IdentityError as error:
        assert error.rule == "FORM"


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=4), st.sampled_from([CERTIFICATE, PRIVATE_KEY]))
def test_what_was_written_is_read(contents, label):
    assert parse_blocks(b"".join(block(each, label) for each in contents), label) == contents


@given(st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(
    [b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"-----BEGIN PRIVATE KEY-----", b"MAA=", b"\n", b"x"]
), max_size=12).map(b"".join)))  # fmt: skip
def test_anything_gives_blocks_or_an_identity_error(data):
    try:
        parse_blocks(data, CERTIFICATE)
    except IdentityError as error:
        assert error.rule == "FORM"
