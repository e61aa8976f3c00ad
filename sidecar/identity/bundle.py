"""Trust bundles: the authorities of one trust domain (SPIFFE Trust Domain and Bundle). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from cryptography import x509

from sidecar.errors import IdentityError
from sidecar.identity.jwk import check_same_key
from sidecar.identity.pem import decode_base64, load_certificate, parse_certificates
from sidecar.identity.spiffe_id import parse_trust_domain

MAX_BUNDLE_BYTES: Final = 4 << 20
MAX_SEQUENCE: Final = (1 << 64) - 1

_KEY_TYPES = frozenset({"EC", "RSA", "OKP"})
_NO_MEMBER: Final = object()


@dataclass(frozen=True, slots=True)
class Bundle:
    """The X.509 authorities of ``trust_domain``, CA certificates only; none at all means "trust nobody"."""

    trust_domain: str
    authorities: tuple[x509.Certificate, ...]
    sequence: int | None = None
    refresh_hint_s: int | None = None


Bundles = Mapping[str, Bundle]
"""One bundle per trust domain name. A peer is judged by the bundle of its own trust domain and by no other."""


def parse_any_bundle(trust_domain: str, data: bytes) -> dict[str, Bundle]:
    """The bundles in ``data``: PEM or a SPIFFE bundle, both of ``trust_domain``, or a SPIFFE bundle map.

    Raises :class:`IdentityError`.
    """
    if not data.lstrip().startswith(b"{"):
        return {trust_domain: parse_pem_bundle(trust_domain, data)}
    document = _load_object(data)
    if "trust_domains" not in document:
        return {trust_domain: _read_bundle(trust_domain, document)}
    if "keys" in document:
        raise IdentityError(
            "BU-09", "it is both a bundle and a bundle map: it has 'keys' and 'trust_domains'"
        )
    return _read_map(document)


def parse_bundle(trust_domain: str, data: bytes) -> Bundle:
    """The bundle of ``trust_domain`` in SPIFFE's JSON form. Raises :class:`IdentityError`.

    Entries that are not for X.509-SVIDs, or of a kind that is not known, are left out (BU-06), and so are those without
    a certificate (X5-22) and those whose certificate is no authority: a leaf among the authorities would prove itself.
    If none is left, nobody is trusted. Whatever is broken, however, refuses the whole.
    """
    return _read_bundle(trust_domain, _load_object(data))


def parse_bundle_map(data: bytes) -> dict[str, Bundle]:
    """The bundles of a SPIFFE bundle map, by trust domain; all or none. Raises :class:`IdentityError`."""
    return _read_map(_load_object(data))


def parse_pem_bundle(trust_domain: str, data: bytes) -> Bundle:
    """The bundle of ``trust_domain`` from PEM certificates. Raises :class:`IdentityError`.

    Certificates that are no authorities are left out. A file without any is refused and not taken for "trust nobody":
    PEM has no way to say that on purpose.
    """
    parse_trust_domain(trust_domain)
    _check_size(data)
    authorities = [each for each in parse_certificates(data) if is_authority(each)]
    if not authorities:
        raise IdentityError(
            "BU-07", "none of its certificates is an authority (basic constraints with cA true)"
        )
    return Bundle(trust_domain, tuple(dict.fromkeys(authorities)))


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether the certificate says of itself that it may sign others. Its extensions must be readable."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _read_map(document: dict[str, Any]) -> dict[str, Bundle]:
    domains = document.get("trust_domains", _NO_MEMBER)
    if not isinstance(domains, dict):
        raise IdentityError("BU-09", "the bundle map has no object 'trust_domains'")
    return {domain: _read_bundle(domain, _object(value, domain)) for domain, value in domains.items()}


def _object(value: Any, domain: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise IdentityError("BU-02", f"the bundle of {domain!r} is not an object")
    return value


def _read_bundle(trust_domain: str, document: dict[str, Any]) -> Bundle:
    parse_trust_domain(trust_domain)
    keys = document.get("keys", _NO_MEMBER)
    if not isinstance(keys, list):
        raise IdentityError("BU-05", f"the bundle of {trust_domain!r} has no array 'keys'")
    authorities: dict[x509.Certificate, None] = {}
    for place, key in enumerate(keys):
        try:
            certificate = _read_key(key)
        except IdentityError as exc:
            raise IdentityError(exc.rule, f"keys[{place}] of the bundle of {trust_domain!r}: {exc}") from exc
        if certificate is not None and is_authority(certificate):
            authorities[certificate] = None
    return Bundle(
        trust_domain,
        tuple(authorities),
        _read_number(document, "spiffe_sequence", "BU-03"),
        _read_number(document, "spiffe_refresh_hint", "BU-04"),
    )


def _read_key(key: Any) -> x509.Certificate | None:
    """The authority in one JWK; None if it is not for X.509-SVIDs or the standard says to ignore it."""
    if not isinstance(key, dict):
        raise IdentityError("BU-02", "not an object")
    kind, use = key.get("kty"), key.get("use")
    if not isinstance(kind, str) or kind not in _KEY_TYPES or use != "x509-svid":
        return None
    chain = key.get("x5c")
    if chain is None or chain == []:
        return None
    if not isinstance(chain, list) or not isinstance(chain[0], str):
        raise IdentityError("X5-21", "'x5c' is not an array of strings")
    try:
        der = decode_base64(chain[0].encode())
    except ValueError:  # UnicodeEncodeError of a lone surrogate is one
        raise IdentityError("X5-21", "'x5c' is not base64 (and not base64url)") from None
    certificate = load_certificate(der)
    check_same_key(key, certificate)
    return certificate


def _read_number(document: dict[str, Any], name: str, rule: str) -> int | None:
    value = document.get(name, _NO_MEMBER)
    if value is _NO_MEMBER:
        return None
    if type(value) is not int or not 0 <= value <= MAX_SEQUENCE:
        raise IdentityError(
            rule, f"{name!r} is {value!r:.40}, expected a whole number from 0 to {MAX_SEQUENCE}"
        )
    return value


def _load_object(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``, UTF-8, every member once at every level."""
    _check_size(data)
    try:
        document = json.loads(data.decode(), object_pairs_hook=_refuse_twice, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise IdentityError("BU-02", "it is not UTF-8") from None
    except RecursionError:
        raise IdentityError("BU-02", "it is nested too deeply") from None
    except ValueError as exc:  # JSONDecodeError, and numbers of thousands of digits
        where = f" at line {exc.lineno}" if isinstance(exc, json.JSONDecodeError) else ""
        raise IdentityError("BU-02", f"it is not JSON{where}") from exc
    if not isinstance(document, dict):
        raise IdentityError("BU-02", "it is not a JSON object")
    return document


def _check_size(data: bytes) -> None:
    if len(data) > MAX_BUNDLE_BYTES:
        raise IdentityError("FORM", f"it has {len(data)} bytes, at most {MAX_BUNDLE_BYTES} are accepted")


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two members of one name: whoever reads the first and whoever reads the last would trust different people."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise IdentityError("BU-10", f"the member {name!r:.80} stands there twice")
        members[name] = value
    return members


def _refuse_constant(text: str) -> NoReturn:
    raise IdentityError("BU-02", f"{text} is not JSON")
