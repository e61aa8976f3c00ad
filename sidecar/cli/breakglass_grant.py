"""What the options of ``break-glass grant`` mean, as a grant that nobody has signed yet."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TypeVar

import click

from sidecar.breakglass.grant import MAX_AUDIENCE, MAX_TARGETS, Grant, parse_target
from sidecar.cli.admin_client import admin_call
from sidecar.errors import ConfigurationError, SidecarError, UnavailableError, VerificationError
from sidecar.identity.spiffe_id import SpiffeId, parse_trust_domain, parse_workload_id
from sidecar.settings.values import duration

T = TypeVar("T")

_TTL = duration("1s", "4h")


def make_grant(
    subject: str,
    targets: tuple[str, ...],
    ttl: str,
    reason: str,
    audience: tuple[str, ...],
    wide: str | None,
    max_uses: int | None,
    now_s: float,
) -> Grant:
    """The grant that the options describe, from ``now_s`` on and without its requester.

    Raises a usage error for what they cannot mean, and asks the sidecar that runs here for its id if none is
    named.
    """
    if audience and wide is not None:
        raise click.UsageError("--audience and --wide exclude each other")
    if max_uses is not None and (wide is not None or len(audience) > 1):
        raise click.UsageError("a grant with --max-uses names exactly one sidecar")
    if len(targets) > MAX_TARGETS or len(audience) > MAX_AUDIENCE:
        raise click.UsageError(f"at most {MAX_TARGETS} times --allow and {MAX_AUDIENCE} times --audience")
    caller = _parse("--to", parse_workload_id, subject)
    allow = tuple(_parse("--allow", parse_target, text) for text in targets)
    life_s = _parse("--for", _TTL.parse, ttl)
    if not isinstance(life_s, float) or not life_s.is_integer():
        raise click.BadParameter("whole seconds are needed", param_hint="--for")
    sidecars = tuple(_parse("--audience", parse_workload_id, text) for text in audience)
    domain = None if wide is None else _parse("--wide", parse_trust_domain, wide)
    if not sidecars and domain is None:
        sidecars = (_ask_own_id(),)
    begins_s = int(now_s)
    return Grant(
        id=secrets.token_hex(16),
        audience=sidecars,
        wide=domain,
        subject=caller,
        allow=allow,
        reason=reason,
        requester="",
        signed_at_s=begins_s,
        not_before_s=begins_s,
        not_after_s=begins_s + int(life_s),
        max_uses=max_uses,
    )


def _parse(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except (ConfigurationError, VerificationError) as exc:
        raise click.BadParameter(str(exc), param_hint=option) from exc


def _ask_own_id() -> SpiffeId:
    """The id of the sidecar that runs here. Raises SidecarError when there is none, or it does not say."""
    try:
        status = admin_call("GET", "/v1/status")
    except UnavailableError as exc:
        raise UnavailableError(f"no --audience, and {exc}") from exc
    named = status.get("spiffe_id") if isinstance(status, dict) else None
    if not isinstance(named, str):
        raise SidecarError("the running sidecar does not say who it is; give --audience")
    return parse_workload_id(named)
