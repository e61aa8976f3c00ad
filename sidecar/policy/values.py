"""What the texts in a policy may say: one parser for each kind of value. Pure.

Each gives the value or raises :class:`ConfigurationError` with what was expected; key and place are added by
the reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final

from sidecar.errors import ConfigurationError, IdentityError
from sidecar.identity.spiffe_id import SpiffeId, parse_workload_id
from sidecar.policy.model import ANY_METHOD, NEVER_PERMITTED, Rate

MAX_RATE: Final = 1_000_000
# fmt: off
METHODS: Final = frozenset({
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY",
    "COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "UNLOCK", "REPORT", "ACL", "SEARCH",
})
# fmt: on
"""What a rule may name: the methods that are served at all."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/-]{0,126}[A-Za-z0-9])?")
_RATE = re.compile(r"([1-9][0-9]{0,6})/([smh])")
_PERIODS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_URL = re.compile(r"https?://[!-~]{1,2000}")


def parse_name(text: str) -> str:
    """A name of an owner, scope, purpose or environment: what fits into headers, records and labels."""
    if _NAME.fullmatch(text) is None:
        raise ConfigurationError(
            f"{text!r} is not a name; it has 1 to 128 letters, digits, '.', '_', ':', '/' or '-' "
            "and begins and ends with a letter or digit"
        )
    return text


def parse_line(text: str) -> str:
    """One line of text for people, unchanged."""
    if not 1 <= len(text) <= 200 or not text.isprintable() or text != text.strip():
        raise ConfigurationError(f"{text[:200]!r} is not one line of 1 to 200 printable characters")
    return text


def parse_url(text: str) -> str:
    """The address of a page for people."""
    if _URL.fullmatch(text) is None:
        raise ConfigurationError(f"{text[:200]!r} is not a URL; it begins with https:// and has no spaces")
    return text


def parse_flag(text: str) -> bool:
    """``true`` or ``false``; YAML's other words for them are refused."""
    if text not in ("true", "false"):
        raise ConfigurationError(f"{text!r} is neither true nor false")
    return text == "true"


def choice(*names: str) -> Callable[[str], str]:
    """A parser that takes one of ``names``."""

    def parse(text: str) -> str:
        if text not in names:
            raise ConfigurationError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return parse


def parse_method(text: str) -> str:
    """A method's name, or ``*`` for any."""
    if text == ANY_METHOD or text in METHODS:
        return text
    if text in NEVER_PERMITTED:
        raise ConfigurationError(f"{text} is never permitted; remove it")
    if text.upper() in METHODS:
        raise ConfigurationError(f"methods are in upper case; write {text.upper()}")
    raise ConfigurationError(f"{text!r} is not a known method; known are {', '.join(sorted(METHODS))}")


def parse_id(text: str) -> SpiffeId:
    """A workload's SPIFFE ID."""
    try:
        return parse_workload_id(text)
    except IdentityError as exc:
        raise ConfigurationError(str(exc)) from exc


def parse_rate(text: str) -> Rate:
    """``N/s``, ``N/m`` or ``N/h``."""
    found = _RATE.fullmatch(text)
    if found is None or int(found[1]) > MAX_RATE:
        raise ConfigurationError(f"{text!r} is not a rate; write N/s, N/m or N/h with N from 1 to {MAX_RATE}")
    return Rate(int(found[1]), _PERIODS_S[found[2]])


def parse_date(text: str) -> date:
    """A day, ``YYYY-MM-DD``."""
    try:
        if _DATE.fullmatch(text) is None:
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is not a day; write YYYY-MM-DD") from None


def parse_end(text: str) -> float:
    """The first moment after an end, in Unix seconds.

    A day (``YYYY-MM-DD``, UTC) counts to its last second; an RFC 3339 time is that moment itself.
    """
    try:
        if _DATE.fullmatch(text):
            day = date.fromisoformat(text)
            return (datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)).timestamp()
        if _MOMENT.fullmatch(text) is None:
            raise ValueError
        return datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{text!r} is not an end; write a day as YYYY-MM-DD (UTC, itself included) "
            "or a time as YYYY-MM-DDTHH:MM:SSZ"
        ) from None
