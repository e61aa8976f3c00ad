"""The decision: one verdict for each call, from policy, grants and rates. Pure; the clock is handed in.

Order: certificate's end, registration, registration's end, policy, purpose, task; then break-glass, if all
denials so far are ones that a grant may lift; then the rate. What depends on policy and call alone
(:mod:`sidecar.authz.steps`) is remembered until the policy changes; ends, grants and rates are judged on
every call.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from sidecar.authz.call import Call, Verdict
from sidecar.authz.details import build_details
from sidecar.authz.ports import GrantInForce, Grants
from sidecar.authz.rate import Buckets
from sidecar.authz.reasons import Reason
from sidecar.authz.recent import Recent
from sidecar.authz.steps import Ruling, rule_on
from sidecar.clock import Clock
from sidecar.policy.engines import build_engine
from sidecar.policy.judgement import Judgement
from sidecar.policy.model import Identity, Policy

log = logging.getLogger(__name__)

# Room for twice as many rulings of about 1 kB. Longer keys are not remembered: they would cost memory at a
# caller's will.
REMEMBERED: Final = 2048
MAX_REMEMBERED_CHARS: Final = 512
# One for each end of the certificates of an identity's replicas.
VERDICTS_REMEMBERED: Final = 16

_Key = tuple[str, str, str, str | None]


@dataclass(frozen=True, slots=True)
class Examination:
    """A verdict and how it came about; no ``ruling`` where the caller is not registered."""

    verdict: Verdict
    identity: Identity | None
    ruling: Ruling | None


class Authorizer:
    """Decides by ``policy`` and ``grants``. Never changed by a call but for the caller's rate."""

    __slots__ = (
        "_changes", "_clock", "_details", "_engine", "_grants", "_policy", "_rates", "_recent", "_told", "_verdicts"
    )  # fmt: skip

    def __init__(self, policy: Policy, grants: Grants, clock: Clock) -> None:
        self._grants = grants
        self._clock = clock
        self._rates = Buckets()
        self._told: set[type[Exception]] = set()
        self._changes = -1
        self.replace_policy(policy)

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    @property
    def generation(self) -> int:
        """Changes with policy and grants: a sign that open calls should be judged anew (:meth:`review`)."""
        return self._changes + self._grants.generation

    def replace_policy(self, policy: Policy) -> None:
        """Puts ``policy`` in force for the next call. Raises PolicyError, and then the old one stays.

        Rates that did not change go on where they are.
        """
        engine = build_engine(policy)
        details = build_details(policy.service)
        self._policy = policy
        self._engine = engine
        self._details = details
        self._recent: Recent[_Key, Ruling] = Recent(REMEMBERED)
        # One object for all calls judged alike: a new path then costs no new verdict, nor what hangs on it.
        self._verdicts: Recent[tuple[object, ...], Verdict] = Recent(REMEMBERED)
        self._changes += 1
        self._rates.drop_full(self._clock.monotonic_s())

    def decide(self, call: Call) -> Verdict:
        """The verdict about ``call``; an allow is charged to the caller's rate. Never raises."""
        try:
            return self._decide(call, self._clock.wall_s(), charge=True)
        except Exception as exc:  # noqa: BLE001 - what fails while deciding is a refusal, whatever it is
            return self._fail(exc)

    def examine(self, call: Call) -> Examination:
        """What :meth:`decide` would say, charging nothing, with the steps that led there. Never raises."""
        try:
            identity = self._policy.identities.get(call.peer.id_text)
            ruling = None if identity is None else rule_on(identity, self._engine, call)
            return Examination(self._decide(call, self._clock.wall_s(), charge=False), identity, ruling)
        except Exception as exc:  # noqa: BLE001 - as in decide
            return Examination(self._fail(exc), None, None)

    def review(self, call: Call, verdict: Verdict) -> Reason | None:
        """Why a call that ``verdict`` allowed and that is still open may not go on; None if it may. Never
        raises.

        Judged by the policy, grants and time of now, without the rate. A call that rests on a grant ends with
        it, even if policy would permit it by now: its window was the grant's.
        """
        try:
            return self._review(call, verdict, self._clock.wall_s())
        except Exception as exc:  # noqa: BLE001 - as in decide
            self._fail(exc)
            return Reason.INTERNAL

    def _decide(self, call: Call, wall_s: float, *, charge: bool) -> Verdict:
        peer = call.peer
        not_after_s = peer.not_after_s
        # "Not before its end" instead of "after it", here and below: a time that compares with nothing is no
        # time.
        if not wall_s < not_after_s:
            return self._refuse(Reason.SVID_EXPIRED, self._policy.identities.get(peer.id_text))
        ruling = None
        if not call.has_task:
            ruling = self._recent.get((peer.id_text, call.method, call.path, call.purpose))
        if ruling is None:
            ruling = self._rule(call)
            if ruling is None:
                return self._refuse(Reason.UNKNOWN_IDENTITY, None)
        identity = ruling.identity
        if not wall_s < ruling.expires_s:
            return self._refuse(Reason.IDENTITY_EXPIRED, identity)
        grant = None
        if ruling.denials:
            if not ruling.is_final:
                grant = self._grants.find(peer.id_text, call.method, call.segments, wall_s)
            if grant is None:
                return self._refuse(ruling.reason, identity, ruling)
        if identity.rate is not None:
            ask = self._rates.take if charge else self._rates.look
            retry_after_s = ask(peer.id_text, identity.rate, self._clock.monotonic_s())
            if retry_after_s is not None:
                return self._refuse(Reason.RATE, identity, ruling, retry_after_s)
        if grant is not None:
            return self._allow(ruling, not_after_s, grant)
        return ruling.verdicts.get(not_after_s) or self._permit(ruling, not_after_s)

    def _rule(self, call: Call) -> Ruling | None:
        """The ruling on ``call``, remembered if it may be; None for a caller that is not registered."""
        identity = self._policy.identities.get(call.peer.id_text)
        if identity is None:
            return None
        ruling = rule_on(identity, self._engine, call)
        if not call.has_task and len(call.path) + len(call.purpose or "") <= MAX_REMEMBERED_CHARS:
            self._recent.put((identity.id_text, call.method, call.path, call.purpose), ruling)
        return ruling

    def _permit(self, ruling: Ruling, not_after_s: float) -> Verdict:
        """The allow that rests on policy alone, remembered here and in the ruling."""
        key = (ruling.identity.id_text, ruling.judgement, not_after_s)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._allow(ruling, not_after_s, None)
            self._verdicts.put(key, verdict)
        if len(ruling.verdicts) >= VERDICTS_REMEMBERED:
            ruling.verdicts.clear()
        ruling.verdicts[not_after_s] = verdict
        return verdict

    def _allow(self, ruling: Ruling, not_after_s: float, grant: GrantInForce | None) -> Verdict:
        identity, judgement = ruling.identity, ruling.judgement
        ends = [not_after_s, ruling.expires_s] if grant is None else [not_after_s, ruling.expires_s, grant[1]]
        return Verdict(
            "allow",
            "policy" if grant is None else "grant",
            self._policy.sha256,
            rule=judgement.rule,
            route=judgement.route,
            scope=judgement.scope,
            owner=identity.owner,
            kind=identity.kind,
            environment=identity.environment,
            grant=None if grant is None else grant[0],
            lifted=tuple(denial.value for denial in ruling.denials),
            until_s=min(ends),
            streaming=judgement.streaming,
            audit_strict=judgement.audit_strict,
        )

    def _refuse(
        self,
        reason: Reason,
        identity: Identity | None,
        ruling: Ruling | None = None,
        retry_after_s: int | None = None,
    ) -> Verdict:
        judgement = None if ruling is None else ruling.judgement
        key = (reason, None if identity is None else identity.id_text, judgement, retry_after_s)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._write_refusal(reason, identity, judgement, retry_after_s)
            self._verdicts.put(key, verdict)
        return verdict

    def _write_refusal(
        self,
        reason: Reason,
        identity: Identity | None,
        judgement: Judgement | None,
        retry_after_s: int | None,
    ) -> Verdict:
        return Verdict(
            "deny",
            reason.value,
            self._policy.sha256,
            rule=None if judgement is None else judgement.rule,
            route=None if judgement is None else judgement.route,
            scope=None if judgement is None else judgement.scope,
            owner=None if identity is None else identity.owner,
            kind=None if identity is None else identity.kind,
            environment=None if identity is None else identity.environment,
            retry_after_s=retry_after_s,
            detail=self._details[reason],
        )

    def _review(self, call: Call, verdict: Verdict, wall_s: float) -> Reason | None:
        if not wall_s < call.peer.not_after_s:
            return Reason.SVID_EXPIRED
        ruling = self._rule(call)
        if ruling is None:
            return Reason.UNKNOWN_IDENTITY
        if not wall_s < ruling.expires_s:
            return Reason.IDENTITY_EXPIRED
        if ruling.denials and ruling.is_final:
            return ruling.reason
        if verdict.grant is not None:
            if self._grants.is_in_force(verdict.grant, wall_s):
                return None
            return Reason(verdict.lifted[0])
        return ruling.reason if ruling.denials else None

    def _fail(self, exc: Exception) -> Verdict:
        if (
            type(exc) not in self._told
        ):  # once for each kind: a fault that every call meets must not fill the disk
            self._told.add(type(exc))
            log.error("deciding failed, so calls are refused", exc_info=exc)
        return self._write_refusal(Reason.INTERNAL, None, None, None)
