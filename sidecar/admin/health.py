"""Health as a list of named checks, and the page that probes and people read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Probe = Literal["livez", "readyz"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check; ``why`` says what failed, in words that anybody may read."""

    name: str
    ok: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """The answer to a probe. No checks at all is not healthy: nothing vouched for it."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)


HealthSource = Callable[[Probe], Health]


def render_health(probe: Probe, health: Health, *, verbose: bool) -> str:
    """Plain text: one word, or with ``verbose`` a line per check as Kubernetes' own components print it."""
    verdict = "ok" if health.ok else "failed"
    if not verbose:
        return f"{verdict}\n"
    lines = [
        f"[+]{check.name} ok" if check.ok else f"[-]{check.name} failed: {check.why}"
        for check in health.checks
    ]
    return "\n".join([*lines, f"{probe} {verdict}"]) + "\n"
