"""Grants, revocations and reviews as values, and the words they are made of. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sidecar.errors import ConfigurationError
from sidecar.identity.route import PathPattern, Segments, parse_pattern
from sidecar.identity.spiffe_id import SpiffeId

MAX_TARGETS: Final = 64
MAX_AUDIENCE: Final = 64
MAX_METHODS: Final = 16
MAX_USES: Final = 10_000

_ID = re.compile(r"[0-9a-f]{32}")
_METHOD = re.compile(r"[A-Z][A-Z0-9-]{0,31}")
_PERSON = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")


@dataclass(frozen=True, slots=True)
class Target:
    """Methods and one path pattern; a call has to match both."""

    methods: tuple[str, ...]
    path: PathPattern

    def covers(self, method: str, segments: Segments) -> bool:
        return method in self.methods and self.path.matches(segments)

    def __str__(self) -> str:
        return f"{','.join(self.methods)} {self.path}"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a grant opens. Times are Unix seconds; ``not_after_s`` is the first second at which it has ended.

    Exactly one of ``audience`` (not empty) and ``wide`` (a trust domain) says which sidecars it is for.
    """

    id: str
    audience: tuple[SpiffeId, ...]
    wide: str | None
    subject: SpiffeId
    allow: tuple[Target, ...]
    reason: str
    requester: str
    signed_at_s: int
    not_before_s: int
    not_after_s: int
    max_uses: int | None = None

    def is_for(self, sidecar: SpiffeId) -> bool:
        """Whether ``sidecar`` is among those that the grant names."""
        return sidecar in self.audience or self.wide == sidecar.trust_domain

    def covers(self, method: str, segments: Segments) -> bool:
        return any(target.covers(method, segments) for target in self.allow)


@dataclass(frozen=True, slots=True)
class Revocation:
    """The end of one grant, for ever and on every sidecar that hears of it."""

    grant_id: str
    reason: str
    signer: str
    signed_at_s: int


@dataclass(frozen=True, slots=True)
class Review:
    """Somebody has looked at what was done under a grant."""

    grant_id: str
    note: str
    signer: str
    signed_at_s: int


def parse_person(text: str) -> str:
    """The name of somebody who signs, as the first column of the signers file has it. ConfigurationError."""
    if _PERSON.fullmatch(text) is None:
        raise ConfigurationError(
            f"{text!r} is no name of a signer; write letters, digits and . _ @ + -, a letter or digit first"
        )
    return text


def parse_grant_id(text: str) -> str:
    """The id of a grant. Raises ConfigurationError."""
    if _ID.fullmatch(text) is None:
        raise ConfigurationError(f"{text!r} is no id of a grant; it has 32 digits 0-9 a-f")
    return text


def parse_target(text: str) -> Target:
    """The target in ``METHOD[,METHOD] PATH``. Raises ConfigurationError."""
    words = text.split(" ")
    if len(words) != 2:
        raise ConfigurationError(f"{text!r} is no target; write 'METHOD[,METHOD] PATH'")
    return make_target(words[0].split(","), words[1])


def make_target(methods: Sequence[str], path: str) -> Target:
    """Methods and a path pattern as a target. Raises ConfigurationError."""
    if not 0 < len(methods) <= MAX_METHODS:
        raise ConfigurationError(f"a target has 1 to {MAX_METHODS} methods, got {len(methods)}")
    for method in methods:
        if _METHOD.fullmatch(method) is None:
            raise ConfigurationError(
                f"{method!r} is no method: one word in capitals, and there is no wildcard"
            )
    if len(set(methods)) != len(methods):
        raise ConfigurationError("a target names a method twice")
    return Target(tuple(methods), parse_pattern(path))
