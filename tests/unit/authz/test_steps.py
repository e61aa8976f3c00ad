from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sidecar.authz.reasons import Reason
from sidecar.authz.steps import rule_on
from sidecar.policy.judgement import Judgement
from tests.unit.authz.conversation import WEB, call_of, identity, policy_of

PERMIT = Judgement("permit", "s[0]", "/x", "s")


class Says:
    """An engine that always says the same."""

    def __init__(self, judgement: Judgement) -> None:
        self.judgement = judgement

    def judge(self, *asked: object) -> Judgement:
        return self.judgement


@pytest.mark.parametrize(
    ("judgement", "said", "has_task", "denials", "is_final"),
    [
        (PERMIT, {}, False, (), False),
        (Judgement("scope"), {}, False, (Reason.SCOPE,), False),
        (Judgement("scope", is_final=True), {"purposes": ["a"]}, False, (Reason.SCOPE,), True),
        (
            Judgement("rule", "deny[0]"),
            {"purposes": ["a"]},
            False,
            (Reason.RULE,),
            True,
        ),  # whatever the engine says
        (Judgement("scope"), {"purposes": ["a"]}, False, (Reason.SCOPE, Reason.PURPOSE), False),
        (Judgement("scope"), {}, True, (Reason.SCOPE, Reason.TASK_INVALID), True),
    ],
)
def test_denials_are_remembered_until_one_is_final(judgement, said, has_task, denials, is_final):
    registered = policy_of([identity(**said)]).identities[WEB]
    ruling = rule_on(registered, Says(judgement), call_of(has_task=has_task))
    assert (ruling.denials, ruling.is_final) == (denials, is_final)
    if denials:
        assert ruling.reason is (denials[-1] if is_final else denials[0])


def test_a_choice_of_no_purpose_at_all_permits_none():
    registered = replace(policy_of().identities[WEB], purposes=frozenset())
    for purpose in (None, "", "buy"):
        assert rule_on(registered, Says(PERMIT), call_of(purpose=purpose)).denials == (Reason.PURPOSE,)


def test_an_identity_without_end_ends_never():
    assert rule_on(policy_of().identities[WEB], Says(PERMIT), call_of()).expires_s == math.inf
