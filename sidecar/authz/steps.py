"""The steps that depend on nothing but policy and call: policy, purpose, task, in this order. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sidecar.authz.call import Call, Verdict
from sidecar.authz.reasons import LIFTABLE, Reason
from sidecar.policy.engines import Engine
from sidecar.policy.judgement import Judgement
from sidecar.policy.model import Identity


@dataclass(slots=True)
class Ruling:
    """What these steps say about one identity's call, for as long as the policy stays.

    ``denials`` are in their order; empty means permitted. ``is_final``: the last of them ends the check and
    is the reason. ``expires_s`` is the identity's end. ``verdicts`` is a memory for who decides: the allow
    for each end of a caller's certificate.
    """

    identity: Identity
    judgement: Judgement
    denials: tuple[Reason, ...]
    is_final: bool
    expires_s: float
    verdicts: dict[float, Verdict] = field(default_factory=dict)

    @property
    def reason(self) -> Reason:
        """Why the call is refused if nothing lifts the denials. IndexError if there are none."""
        return self.denials[-1] if self.is_final else self.denials[0]


def rule_on(identity: Identity, engine: Engine, call: Call) -> Ruling:
    """Goes through the steps: a denial that a grant may lift is remembered, any other ends them."""
    judgement = engine.judge(identity, call.method, call.segments)
    denials: list[Reason] = []
    is_final = False
    for denial, is_liftable in (
        (_judge_policy(judgement), True),
        (_judge_purpose(identity, call), True),
        # A token can only narrow. What it says is not known yet, so a grant must not open the call despite
        # it.
        (_judge_task(identity, call), not call.has_task),
    ):
        if denial is not None:
            denials.append(denial)
            is_final = judgement.is_final or not is_liftable or denial not in LIFTABLE
            if is_final:
                break
    expires_s = math.inf if identity.expires_s is None else identity.expires_s
    return Ruling(identity, judgement, tuple(denials), is_final, expires_s)


def _judge_policy(judgement: Judgement) -> Reason | None:
    if judgement.answer == "permit":
        return None
    return Reason.SCOPE if judgement.answer == "scope" else Reason.RULE


def _judge_purpose(identity: Identity, call: Call) -> Reason | None:
    if identity.purposes is None or call.purpose in identity.purposes:
        return None
    return Reason.PURPOSE


def _judge_task(identity: Identity, call: Call) -> Reason | None:
    """Until tasks are built no token can be verified: agents need one, and nobody's is silently dropped."""
    if identity.kind == "agent":
        return Reason.TASK_REQUIRED
    return Reason.TASK_INVALID if call.has_task else None
