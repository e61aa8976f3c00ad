"""A policy as values: owners, scopes, identities, denials. Pure; :mod:`sidecar.policy.loader` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

from sidecar.identity.route import PathPattern
from sidecar.identity.spiffe_id import SpiffeId

Kind = Literal["service", "job", "agent", "vendor", "legacy"]
KINDS: Final[tuple[Kind, ...]] = ("service", "job", "agent", "vendor", "legacy")
ENDING_KINDS: Final = frozenset({"agent", "vendor", "legacy"})
"""Kinds whose identities must say when they expire."""

ANY_METHOD: Final = "*"
NEVER_PERMITTED: Final = frozenset({"CONNECT", "TRACE"})
"""Methods that no rule permits, ``"*"`` included."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who answers for identities: a team or person, how to reach them, and when that is to be confirmed."""

    name: str
    contact: str
    review_by: date | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Methods (``("*",)`` for any) on path patterns. ``streaming`` lifts the total deadline of a call."""

    methods: tuple[str, ...]
    patterns: tuple[PathPattern, ...]
    streaming: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """A named set of rules.

    ``never_override``: no grant opens anything that its rules cover. ``audit_strict``: a call's ``open`` line
    is on disk before the call goes on. ``unsafe_any_method``: its rules may say ``"*"``.
    """

    name: str
    rules: tuple[Rule, ...]
    unsafe_any_method: bool = False
    never_override: bool = False
    audit_strict: bool = False


@dataclass(frozen=True, slots=True)
class Denial:
    """A ``deny`` rule: what it covers is refused, whatever scopes and grants say; None means to all."""

    rule: Rule
    identities: frozenset[str] | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """``calls`` in ``period_s`` seconds, with a burst of ``calls``."""

    calls: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Identity:
    """One registered workload.

    ``purposes`` None: any or none. ``expires_s`` (Unix seconds) is the first moment at which it has ended,
    None if it never does.
    """

    spiffe_id: SpiffeId
    id_text: str
    owner: str
    kind: Kind
    scopes: tuple[str, ...]
    environment: str | None = None
    purposes: frozenset[str] | None = None
    rate: Rate | None = None
    expires_s: float | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """Whom a refused caller may ask. ``contact`` is the owner's unless the file says another."""

    contact: str
    owner: str | None = None
    docs: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """One reviewed file. ``sha256`` is ``sha256:<hex>`` of its bytes; ``engine`` names what judges by it."""

    sha256: str
    owners: Mapping[str, Owner]
    scopes: Mapping[str, Scope]
    identities: Mapping[str, Identity]
    denials: tuple[Denial, ...] = ()
    service: Service | None = None
    engine: str = "builtin"
