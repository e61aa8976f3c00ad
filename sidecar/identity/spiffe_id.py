"""SPIFFE IDs: one strict grammar (SPIFFE-ID, sections 2.1 to 2.4). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sidecar.errors import IdentityError

SCHEME: Final = "spiffe://"
MAX_ID_BYTES: Final = 2048
MAX_TRUST_DOMAIN_BYTES: Final = 255

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A trust domain and a path; the path is empty (the trust domain's own id) or starts with ``/``.

    Made by :func:`parse_spiffe_id` only, so that one that exists is well-formed.
    """

    trust_domain: str
    path: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"

    @property
    def is_workload(self) -> bool:
        """Whether it names a workload and not a whole trust domain."""
        return bool(self.path)


def parse_trust_domain(text: str) -> str:
    """The trust domain name ``text``, unchanged. Raises :class:`IdentityError` (ID-02 to ID-07, ID-12).

    Nothing is lower-cased: the standard's "case-insensitive" and its "must be lower case" meet in refusing.
    """
    if not text:
        raise IdentityError("ID-02", "the trust domain is empty")
    if "@" in text or ":" in text:
        raise IdentityError("ID-04", f"the trust domain {text!r} has user information or a port")
    if "%" in text:
        raise IdentityError("ID-06", f"the trust domain {text!r} is percent-encoded")
    if _TRUST_DOMAIN.fullmatch(text) is None:
        raise IdentityError("ID-05", f"the trust domain {text!r} has other characters than a-z 0-9 . - _")
    if len(text) > MAX_TRUST_DOMAIN_BYTES:
        raise IdentityError("ID-12", f"the trust domain has more than {MAX_TRUST_DOMAIN_BYTES} bytes")
    return text


def parse_spiffe_id(text: str) -> SpiffeId:
    """The id that ``text`` spells, exactly. Raises :class:`IdentityError`; its ``rule`` names the clause.

    Never normalises: what does not already have its one canonical form is refused.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
        raise IdentityError("ID-11", f"the SPIFFE ID has more than {MAX_ID_BYTES} bytes")
    if not text.startswith(SCHEME):
        raise IdentityError("ID-01", f"{text!r} is not a SPIFFE ID: it must start with spiffe://")
    if "?" in text or "#" in text:
        raise IdentityError("ID-03", f"{text!r} has a query or fragment")
    domain, slash, path = text[len(SCHEME) :].partition("/")
    parse_trust_domain(domain)
    if not slash:
        return SpiffeId(domain, "")
    if path == "" or path.endswith("/"):
        raise IdentityError("ID-10", f"{text!r} ends in a slash")
    if "%" in path:
        raise IdentityError("ID-06", f"the path of {text!r} is percent-encoded")
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            raise IdentityError("ID-09", f"the path of {text!r} has an empty, '.' or '..' segment")
        if _SEGMENT.fullmatch(segment) is None:
            raise IdentityError(
                "ID-08", f"the path of {text!r} has other characters than letters, digits, '.', '-', '_'"
            )
    return SpiffeId(domain, "/" + path)


def parse_workload_id(text: str) -> SpiffeId:
    """As :func:`parse_spiffe_id`, and a workload's: an id without a path is refused (X5-03)."""
    spiffe_id = parse_spiffe_id(text)
    if not spiffe_id.is_workload:
        raise IdentityError("X5-03", f"{text!r} names a trust domain, not a workload: it needs a path")
    return spiffe_id
