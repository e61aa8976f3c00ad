"""Judging a peer: one pure function of chain, bundles and time (SPIFFE X509-SVID, sections 2 to 5).

Signatures and path building are done by cryptography's verifier, with the authorities of the peer's OWN trust
domain and no others. What a SPIFFE leaf has to look like is checked here, before any signature is computed, so that
a refusal names its rule. OpenSSL has meanwhile proved that the peer holds the leaf's key; nothing else it says counts.

``IdentityError.rule`` is the clause of the checklist (``ID-..``, ``X5-..``, ``BU-..``) or one of

* ``CHAIN``: no certificate at all, too many, or too large
* ``FORM``: a certificate that cannot be read
* ``KEY``: a key too weak, too large or of a kind that is not accepted
* ``SIGNATURE``: a signature over a broken digest
* ``INTERNAL``: an exception while judging, which is a refusal like any other
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from sidecar.clock import rfc3339
from sidecar.errors import IdentityError
from sidecar.identity.bundle import Bundles
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.identity.svid import read_workload_id

MAX_CHAIN_CERTIFICATES: Final = 5
MAX_CHAIN_BYTES: Final = 64 * 1024
# Below 2048 bits RSA can be broken; above 4096 each handshake costs the verifier more than it costs the attacker.
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 4096

_CURVES = (ec.SECP256R1, ec.SECP384R1)
_DIGESTS = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_MAX_REASON_CHARACTERS = 200
_BOTH_PURPOSES: Final[frozenset[ObjectIdentifier]] = frozenset(
    {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
)

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


def verify_peer(chain: Sequence[x509.Certificate], bundles: Bundles, now: datetime) -> SpiffeId:
    """The workload that ``chain`` (leaf first, the others in any order) proves at the time ``now``, aware.

    Raises :class:`IdentityError` and nothing else; there is no other way to be refused, and none to be believed but
    by the value returned. Well below a millisecond.
    """
    try:
        return _verify(chain, bundles, now)
    except IdentityError:
        raise
    except Exception as exc:  # boundary: certificates are the peer's bytes, and whatever they provoke is a no
        raise IdentityError(
            "INTERNAL", f"the chain could not be judged: {type(exc).__name__}: {_one_line(str(exc))}"
        ) from exc


def _verify(chain: Sequence[x509.Certificate], bundles: Bundles, now: datetime) -> SpiffeId:
    # 1. Bound the work, before anything is computed from what the peer sent.
    _check_size(chain)
    for certificate in chain:
        _check_readable(certificate)
        _check_key(certificate)
    leaf, *others = chain

    # 2. Read the one name that the leaf claims. It is a claim only until step 5.
    claimed = read_workload_id(leaf)

    # 3. Hold the leaf against the shape that a SPIFFE leaf must have.
    _check_leaf(leaf)
    _check_valid(leaf, now)
    for certificate in chain:
        _check_digest(certificate)

    # 4. Choose the authorities: those of the trust domain that the leaf names, never any others.
    anchors = _anchors(claimed, bundles)
    if leaf in anchors:
        raise IdentityError("X5-20", f"the leaf of {str(claimed)!r} stands in the bundle as an authority")

    # 5. Prove the path from the leaf to one of them.
    path = _prove_path(leaf, _intermediates(others, anchors), anchors, now, claimed)

    # 6. Hold the authority's own key to the rules too; until now it was only trusted, not looked at.
    for certificate in path:
        _check_key(certificate)
    return claimed


def _check_size(chain: Sequence[x509.Certificate]) -> None:
    if not chain:
        raise IdentityError("CHAIN", "the peer sent no certificate")
    if len(chain) > MAX_CHAIN_CERTIFICATES:
        raise IdentityError(
            "CHAIN", f"the peer sent {len(chain)} certificates, at most {MAX_CHAIN_CERTIFICATES} are accepted"
        )
    size = sum(len(certificate.public_bytes(Encoding.DER)) for certificate in chain)
    if size > MAX_CHAIN_BYTES:
        raise IdentityError(
            "CHAIN", f"the peer's certificates have {size} bytes, at most {MAX_CHAIN_BYTES} are accepted"
        )


def _check_readable(certificate: x509.Certificate) -> None:
    """Everything that the later steps read can be read: names, dates, and all extensions, each of them once."""
    try:
        _ = certificate.extensions, certificate.subject, certificate.issuer
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        serial = certificate.serial_number
    except (
        Exception
    ) as exc:  # boundary: the library has half a dozen ways to say that DER is not what it should be
        raise IdentityError("FORM", f"a certificate cannot be read: {_one_line(str(exc))}") from exc
    if serial <= 0:
        raise IdentityError("FORM", "a certificate's serial number is not positive")


def _check_key(certificate: x509.Certificate) -> None:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise IdentityError("KEY", f"a certificate's key cannot be read: {_one_line(str(exc))}") from exc
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise IdentityError(
                "KEY", f"an RSA key of {key.key_size} bits, expected {MIN_RSA_BITS} to {MAX_RSA_BITS}"
            )
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _CURVES):
            raise IdentityError("KEY", f"a key on the curve {key.curve.name}, expected P-256 or P-384")
        # The library takes parameters for the curve that they spell; RFC 5480 permits the name and nothing else.
        if (
            key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            not in certificate.tbs_certificate_bytes
        ):
            raise IdentityError("KEY", "a key whose curve is given by parameters, expected it by name")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise IdentityError(
            "KEY", f"a key of the kind {type(key).__name__}, expected RSA, P-256, P-384 or Ed25519"
        )


def _check_digest(certificate: x509.Certificate) -> None:
    """Precise words for MD5 and SHA-1. A root's signature over itself proves nothing and is not looked at."""
    if certificate.issuer == certificate.subject:
        return
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm as exc:
        raise IdentityError("SIGNATURE", "a certificate is signed with an unknown algorithm") from exc
    if digest is not None and not isinstance(digest, _DIGESTS):
        raise IdentityError(
            "SIGNATURE", f"a certificate is signed with {digest.name}, expected SHA-256 or longer"
        )


def _check_leaf(leaf: x509.Certificate) -> None:
    """Names, basic constraints, key usage and extended key usage are a leaf's, as strict as the text has them."""
    names = _find(leaf, x509.SubjectAlternativeName, "X5-01", "subject alternative name")
    if not names.critical and not leaf.subject.rdns:
        raise IdentityError("X5-04", "the leaf has no subject, and its alternative name is not critical")
    constraints = _find(leaf, x509.BasicConstraints, "X5-05", "basic constraints")
    if constraints.value.ca:
        raise IdentityError("X5-05", "the leaf is an authority: cA is true")
    usage = _find(leaf, x509.KeyUsage, "X5-06", "key usage")
    if not usage.critical:
        raise IdentityError("X5-06", "the leaf's key usage is not critical")
    if not usage.value.digital_signature:
        raise IdentityError("X5-07", "the leaf's key usage is without digitalSignature")
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise IdentityError("X5-08", "the leaf's key usage has keyCertSign or cRLSign")
    try:
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not _BOTH_PURPOSES.issubset(purposes):
        raise IdentityError("X5-09", "the leaf's extended key usage is without serverAuth or clientAuth")


def _find(leaf: x509.Certificate, kind: type[_Kind], rule: str, name: str) -> x509.Extension[_Kind]:
    try:
        return leaf.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        raise IdentityError(rule, f"the leaf is without {name}") from None


def _check_valid(leaf: x509.Certificate, now: datetime) -> None:
    if trouble := _describe_time(leaf, now):
        raise IdentityError("X5-16", f"the leaf {trouble}")


def _describe_time(certificate: x509.Certificate, now: datetime) -> str | None:
    """What is wrong with the dates at ``now``, or None. The last second is part of the validity (RFC 5280 4.1.2.5)."""
    if now < certificate.not_valid_before_utc:
        return f"is valid only from {rfc3339(certificate.not_valid_before_utc)}"
    if now.replace(microsecond=0) > certificate.not_valid_after_utc:
        return f"ended at {rfc3339(certificate.not_valid_after_utc)}"
    return None


def _anchors(claimed: SpiffeId, bundles: Bundles) -> list[x509.Certificate]:
    domain = claimed.trust_domain
    bundle = bundles.get(domain)
    if bundle is None:
        raise IdentityError(
            "X5-17", f"there is no bundle for the trust domain {domain!r} of {str(claimed)!r}"
        )
    if bundle.trust_domain != domain:
        raise IdentityError(
            "X5-17", f"the bundle kept for the trust domain {domain!r} is that of {bundle.trust_domain!r}"
        )
    if not bundle.authorities:
        raise IdentityError("BU-07", f"the bundle of the trust domain {domain!r} is empty: nobody is trusted")
    return list(bundle.authorities)


def _intermediates(others: list[x509.Certificate], anchors: list[x509.Certificate]) -> list[x509.Certificate]:
    """What the peer sent beside the leaf, each once, and no two with one name and one key (``CHAIN``).

    INVARIANT: whoever signed a certificate is then at most one of these, so a path has no forks. Without that, four
    certificates that sign one another in circles cost over a hundred signatures, paid by us and sent by anybody.
    """
    distinct = [each for each in dict.fromkeys(others) if each not in anchors]
    signers = {
        (each.subject, each.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        for each in distinct
    }
    if len(signers) != len(distinct):
        raise IdentityError(
            "CHAIN", "the peer sent two certificates for one authority, of the same name and key"
        )
    return distinct


def _prove_path(
    leaf: x509.Certificate,
    others: list[x509.Certificate],
    anchors: list[x509.Certificate],
    now: datetime,
    claimed: SpiffeId,
) -> list[x509.Certificate]:
    """The proven path, leaf to anchor: signatures, dates, names, path lengths, name constraints, critical extensions
    (X5-11, X5-13, X5-16, X5-19). The client's verifier for both sides: the server's insists on a host name."""
    verifier = (
        PolicyBuilder()
        .store(Store(anchors))
        .time(now)
        .max_chain_depth(len(others))
        .extension_policies(ca_policy=_AUTHORITY, ee_policy=_LEAF)
        .build_client_verifier()
    )
    try:
        return verifier.verify(leaf, others).chain
    except VerificationError as exc:
        reason = str(exc).removeprefix("validation failed: ").partition(" (encountered processing")[0]
        for certificate in (*others, *anchors):
            if trouble := _describe_time(certificate, now):
                reason += f"; one that was offered {trouble}"
                break
        raise IdentityError(
            "X5-16",
            f"no path from the leaf of {str(claimed)!r} to an authority of {claimed.trust_domain!r}: "
            f"{_one_line(reason)}",
        ) from exc


def _check_may_sign(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage) -> None:
    if not usage.key_cert_sign:
        raise IdentityError("X5-11", "an authority's key usage is without keyCertSign")


# The shape of the leaf has been judged by then; this says it once more to the verifier, which would otherwise accept a
# leaf without these. What neither names is permitted, unless it is critical and unknown.
_LEAF: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    .require_present(x509.KeyUsage, Criticality.CRITICAL, None)
)
# That cA is true and pathLen holds is the verifier's own rule for whatever signs.
_AUTHORITY: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.CRITICAL, None)
    .require_present(x509.KeyUsage, Criticality.CRITICAL, _check_may_sign)
)


def _one_line(text: str) -> str:
    """``text`` from somebody else's exception, fit for a log: bounded, and nothing in it that could forge a line."""
    shown = text[:_MAX_REASON_CHARACTERS]
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in shown)
