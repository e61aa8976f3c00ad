"""One call as the decision sees it, and the verdict about it. Values; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecar.authz.reasons import Reason
from sidecar.identity.peer import Peer
from sidecar.identity.route import Segments

Effect = Literal["allow", "deny"]


@dataclass(slots=True)
class Call:
    """What the caller asks for: proven peer and canonical request. Never changed once it is judged.

    ``path`` is the canonical path and ``segments`` its segments; ``purpose`` is the declared one or None; ``has_task``
    says whether a task token came along (until there are tasks, its only use is to be refused).
    """

    peer: Peer
    method: str
    path: str
    segments: Segments
    purpose: str | None = None
    has_task: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one call, with everything its record and its limits need.

    ``reason`` of an allow is ``policy`` or ``grant``; of a deny one of :class:`Reason`. ``route`` is the pattern
    that matched, ``scope`` its scope, ``rule`` where the rule stands in the policy; all None where nothing matched.
    ``owner``, ``kind`` and ``environment`` are those of the registered identity at this moment. ``until_s`` closes
    the call's time window (Unix seconds): the earliest end of the peer's SVID, the identity and the grant.
    ``grant`` has to have a use recorded, durably, before the call goes on. ``audit_strict``: its ``open`` line must
    be on disk first.
    ``detail`` is one sentence for the caller, without policy text.
    """

    effect: Effect
    reason: str
    policy: str
    rule: str | None = None
    route: str | None = None
    scope: str | None = None
    owner: str | None = None
    kind: str | None = None
    environment: str | None = None
    grant: str | None = None
    lifted: tuple[str, ...] = ()
    until_s: float | None = None
    streaming: bool = False
    audit_strict: bool = False
    retry_after_s: int | None = None
    detail: str = ""

    @property
    def is_allowed(self) -> bool:
        return self.effect == "allow"

    @property
    def denial(self) -> Reason:
        """The reason of a deny. ValueError for an allow."""
        return Reason(self.reason)
