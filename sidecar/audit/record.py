"""The audit record: the shape of each line, in the order in which its members are written. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

VERSION = 1


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who called: proven id and certificate serial (hex), how, and what the policy says of it."""

    id: str
    serial: str
    via: Literal["mtls"]
    owner: str | None
    kind: str | None
    source: str
    env: str | None


class Intent(msgspec.Struct, frozen=True, gc=False):
    """What it asked for: canonical path without query, the matched route and scope, the declared purpose."""

    method: str | None
    path: str | None
    route: str | None = None
    scope: str | None = None
    purpose: str | None = None
    task: str | None = None


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What was decided and by what; ``until`` closes the call's time window (RFC 3339, UTC)."""

    effect: Literal["allow", "deny"]
    reason: str
    rule: str | None
    policy: str | None
    grant: str | None = None
    lifted: tuple[str, ...] = ()
    until: str | None = None


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What came of it. ``status`` is None when no answer was begun; sizes are body bytes.

    ``upstream`` is ``ok``, ``none`` (never asked), ``unreachable``, ``invalid``, ``timeout``, ``incomplete`` (the caller or
    the service went away, or the call was cut; ``cut`` then says why).
    """

    status: int | None
    received: int
    sent: int
    duration_us: int
    upstream: str
    cut: str | None = None
