"""A certificate authority for tests: well-shaped by default, mis-shaped in any way that a test asks for.

Written apart from :mod:`sidecar.ca`, so that a mistake in the product's own profile cannot hide itself. ::

    authority = DemoAuthority()                                   # spiffe://demo.test, as seen by a FakeClock
    web = authority.issue("spiffe://demo.test/web")               # .svid, .chain, .leaf, .chain_pem, .key_pem
    late = authority.issue("spiffe://demo.test/web", not_after=START - SECOND)
    bare = authority.issue("spiffe://demo.test/web", key_usage=None)           # without the extension
    weak = authority.issue("spiffe://demo.test/web", key_usage=(key_usage("digital_signature"), False))
    two = authority.issue(["spiffe://demo.test/a", b"spiffe://demo.test/b"])   # two URI SANs
    real = DemoAuthority(now=datetime.now(UTC))                   # for programs that read the real clock
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TypedDict, Unpack

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.identity.bundle import Bundle
from sidecar.identity.spiffe_id import SpiffeId, parse_spiffe_id
from sidecar.identity.svid import Svid

START = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

Extension = tuple[x509.ExtensionType, bool]
"""A value and whether it is critical."""

Names = str | bytes | SpiffeId | Sequence[str | bytes | SpiffeId]
"""One URI SAN or several (or none), each written into the certificate byte for byte."""


class Shape(TypedDict, total=False):
    """What a test may set; None leaves an extension out."""

    not_before: datetime
    not_after: datetime
    key: PrivateKeyTypes
    subject: x509.Name
    issuer: x509.Name
    serial: int
    digest: hashes.HashAlgorithm | None
    signed_by: PrivateKeyTypes
    dns_names: Sequence[str]
    ip_addresses: Sequence[str]
    subject_alternative_name: Extension | None
    basic_constraints: Extension | None
    key_usage: Extension | None
    extended_key_usage: Extension | None
    subject_key_identifier: Extension | None
    authority_key_identifier: Extension | None
    name_constraints: Extension | None
    extra: Sequence[Extension]


@dataclass(frozen=True, slots=True)
class Issued:
    """A chain (leaf first, without the root) and the leaf's key, whatever is wrong with them."""

    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKeyTypes = field(repr=False)

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def chain_pem(self) -> bytes:
        return pem(*self.chain)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.private_key)

    @property
    def svid(self) -> Svid:
        """The same as the product's value. Raises when the leaf names no SPIFFE ID."""
        names = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uri = names.get_values_for_type(x509.UniformResourceIdentifier)[0]
        return Svid(parse_spiffe_id(uri), self.chain, self.private_key)


class DemoAuthority:
    """A root, or with ``parent`` an intermediate, for ``trust_domain``.

    Valid from an hour before ``now`` for a year; what it issues, from ten seconds before ``now`` for an hour.
    The other arguments change its own certificate.
    """

    def __init__(
        self,
        trust_domain: str = "demo.test",
        *,
        now: datetime = START,
        parent: DemoAuthority | None = None,
        path_length: int | None = None,
        uris: Names | None = None,
        **shape: Unpack[Shape],
    ) -> None:
        self.trust_domain = trust_domain
        self.now = now
        self.parent = parent
        self.key = shape.get("key") or new_key()
        names = [f"spiffe://{trust_domain}"] if uris is None else uris
        title = (
            f"{trust_domain} {'root' if parent is None else 'intermediate'} {x509.random_serial_number():x}"
        )
        wanted: Shape = {
            "not_before": now - HOUR,
            "not_after": now + 365 * DAY,
            "key": self.key,
            "subject": common_name(title),
            "subject_alternative_name": uri_names(names) if names else None,
            "basic_constraints": (x509.BasicConstraints(ca=True, path_length=path_length), True),
            "key_usage": (key_usage("key_cert_sign", "crl_sign"), True),
            "extended_key_usage": None,
        }
        wanted.update(shape)
        self.certificate = self._make(wanted, parent)

    @property
    def intermediates(self) -> tuple[x509.Certificate, ...]:
        """What a leaf has to bring along: this certificate and those above it, without the root."""
        return () if self.parent is None else (self.certificate, *self.parent.intermediates)

    @property
    def root(self) -> x509.Certificate:
        return self.certificate if self.parent is None else self.parent.root

    def bundle(self) -> Bundle:
        """The trust domain's bundle: the root."""
        return Bundle(self.trust_domain, (self.root,))

    def bundles(self) -> dict[str, Bundle]:
        return {self.trust_domain: self.bundle()}

    @property
    def bundle_pem(self) -> bytes:
        return pem(self.root)

    def issue(self, names: Names, **shape: Unpack[Shape]) -> Issued:
        """A leaf with these URI SANs, ``localhost`` and the loopback addresses, and the chain to the root."""
        key = shape.get("key") or new_key()
        uris = _listed(names)
        wanted: Shape = {
            "not_before": self.now - 10 * SECOND,
            "not_after": self.now + HOUR,
            "key": key,
            "subject": common_name("workload"),
            "subject_alternative_name": uri_names(
                uris, shape.get("dns_names", ("localhost",)), shape.get("ip_addresses", ("127.0.0.1", "::1"))
            ),
            "basic_constraints": (x509.BasicConstraints(ca=False, path_length=None), True),
            "key_usage": (key_usage("digital_signature"), True),
            "extended_key_usage": (both_usages(), False),
        }
        wanted.update(shape)
        return Issued((self._make(wanted, self), *self.intermediates), key)

    def self_sign(self, names: Names, **shape: Unpack[Shape]) -> Issued:
        """As :meth:`issue`, but signed with the leaf's own key and naming itself as its issuer."""
        key = shape.get("key") or new_key()
        subject = shape.get("subject", common_name("workload"))
        own: Shape = {**shape, "key": key, "subject": subject, "signed_by": key, "issuer": subject}
        made = self.issue(names, **own)
        return Issued(made.chain[:1], key)

    def _make(self, shape: Shape, issuer: DemoAuthority | None) -> x509.Certificate:
        signer = shape.get("signed_by") or (shape["key"] if issuer is None else issuer.key)
        above = shape["subject"] if issuer is None else issuer.certificate.subject
        builder = (
            x509.CertificateBuilder()
            .subject_name(shape["subject"])
            .issuer_name(shape.get("issuer", above))
            .public_key(_public(shape["key"]))
            .serial_number(shape.get("serial") or x509.random_serial_number())
            .not_valid_before(shape["not_before"])
            .not_valid_after(shape["not_after"])
        )
        for extension in _extensions(shape, signer):
            builder = builder.add_extension(*extension)
        digest = shape.get("digest", hashes.SHA256() if isinstance(signer, _HASHING) else None)
        if isinstance(digest, (hashes.MD5, hashes.SHA1)):
            assert isinstance(signer, rsa.RSAPrivateKey), "weak digests are made with RSA only"
            return _sign_weakly(builder.sign(signer, hashes.SHA256()), signer, digest)
        return builder.sign(signer, digest)  # type: ignore[arg-type]


_HASHING = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key; the same one for each size, because making one takes long."""
    return rsa.generate_private_key(65537, bits)


def pem(*certificates: x509.Certificate) -> bytes:
    """The certificates one after another."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def key_pem(key: PrivateKeyTypes) -> bytes:
    """Unencrypted PKCS#8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def common_name(text: str) -> x509.Name:
    """A name of one attribute."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def key_usage(*bits: str) -> x509.KeyUsage:
    """Key usage with these bits and no others."""
    usage = {
        name: name in bits
        for name in (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        )
    }
    unknown = set(bits) - usage.keys()
    assert not unknown, unknown
    return x509.KeyUsage(**usage)


def both_usages() -> x509.ExtendedKeyUsage:
    """Server and client authentication."""
    return x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


def uri_names(
    names: Names, dns_names: Iterable[str] = (), ip_addresses: Iterable[str] = (), *, critical: bool = False
) -> Extension:
    """A subject alternative name, encoded by hand: any byte may stand in a URI, any number of them."""
    parts = [_tlv(0x86, _bytes(name)) for name in _listed(names)]
    parts += [_tlv(0x82, name.encode()) for name in dns_names]
    parts += [_tlv(0x87, ipaddress.ip_address(address).packed) for address in ip_addresses]
    return x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, _tlv(0x30, b"".join(parts))), critical


def _extensions(shape: Shape, signer: PrivateKeyTypes) -> list[Extension]:
    own = x509.SubjectKeyIdentifier.from_public_key(_public(shape["key"]))
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(_public(signer))  # type: ignore[arg-type]
    wanted = [
        shape.get("subject_alternative_name"),
        shape.get("basic_constraints"),
        shape.get("key_usage"),
        shape.get("extended_key_usage"),
        shape.get("subject_key_identifier", (own, False)),
        shape.get("authority_key_identifier", (above, False)),
        shape.get("name_constraints"),
        *shape.get("extra", ()),
    ]
    return [extension for extension in wanted if extension is not None]


def _sign_weakly(
    certificate: x509.Certificate, key: rsa.RSAPrivateKey, digest: hashes.HashAlgorithm
) -> x509.Certificate:
    """The same certificate signed with MD5 or SHA-1, which the builder rightly refuses to do."""
    strong = bytes.fromhex("2a864886f70d01010b")
    weak = strong[:-1] + (b"\x04" if isinstance(digest, hashes.MD5) else b"\x05")
    signed = certificate.tbs_certificate_bytes.replace(strong, weak)
    signature = key.sign(signed, padding.PKCS1v15(), digest)
    algorithm = _tlv(0x30, _tlv(0x06, weak) + b"\x05\x00")
    return x509.load_der_x509_certificate(_tlv(0x30, signed + algorithm + _tlv(0x03, b"\x00" + signature)))


def with_explicit_curve(
    certificate: x509.Certificate, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """The same certificate with its P-256 key's curve written out as parameters, signed anew and rightly."""
    named = _tlv(0x30, bytes.fromhex("06072a8648ce3d0201" + "06082a8648ce3d030107"))
    explicit = _tlv(0x30, bytes.fromhex("06072a8648ce3d0201") + _explicit_p256())
    plain = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    point = plain.partition(named)[2]
    signed = certificate.tbs_certificate_bytes.replace(plain, _tlv(0x30, explicit + point))
    signed = _tlv(0x30, signed[4:])
    signature = signer.sign(signed, ec.ECDSA(hashes.SHA256()))
    algorithm = _tlv(0x30, bytes.fromhex("06082a8648ce3d040302"))
    return x509.load_der_x509_certificate(_tlv(0x30, signed + algorithm + _tlv(0x03, b"\x00" + signature)))


def _explicit_p256() -> bytes:
    """The parameters of P-256 as RFC 3279, section 2.3.5, spells them: field, curve, base point, order, cofactor."""
    prime = (1 << 256) - (1 << 224) + (1 << 192) + (1 << 96) - 1
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    base = ec.derive_private_key(1, ec.SECP256R1()).public_key()
    point = base.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    field_id = _tlv(0x30, bytes.fromhex("06072a8648ce3d0101") + _integer(prime))
    curve = _tlv(0x30, _tlv(0x04, (prime - 3).to_bytes(32, "big")) + _tlv(0x04, b.to_bytes(32, "big")))
    return _tlv(0x30, _integer(1) + field_id + curve + _tlv(0x04, point) + _integer(order) + _integer(1))


def _integer(number: int) -> bytes:
    return _tlv(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _listed(names: Names) -> list[str | bytes | SpiffeId]:
    return [names] if isinstance(names, (str, bytes, SpiffeId)) else list(names)


def _bytes(name: str | bytes | SpiffeId) -> bytes:
    return name if isinstance(name, bytes) else str(name).encode()


def _public(key: PrivateKeyTypes) -> CertificatePublicKeyTypes:
    return key.public_key()  # type: ignore[return-value]


def _tlv(tag: int, value: bytes) -> bytes:
    """DER: tag, length, value."""
    size = len(value)
    if size < 0x80:
        return bytes([tag, size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + value
