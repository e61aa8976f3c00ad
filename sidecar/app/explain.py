"""Answers what would become of a call, read as the data plane reads it: strict target, then decision."""

from __future__ import annotations

from typing import Any

from sidecar.authz.decide import Authorizer
from sidecar.authz.reasons import Reason
from sidecar.proxy.errors import MessageError
from sidecar.proxy.head import METHODS
from sidecar.proxy.target import parse_target
from sidecar.review.explain import explain_call, explain_refused
from sidecar.review.question import Question


def explain(authorizer: Authorizer, question: Question) -> dict[str, Any]:
    """The explanation, JSON's types. A message that the proxy refuses is explained as that."""
    if question.method.encode("ascii") not in METHODS:
        return explain_refused(
            authorizer, question, Reason.METHOD, "the method is not one that is served here"
        )
    try:
        target = parse_target(question.path.encode("ascii"))
    except MessageError as exc:
        return explain_refused(authorizer, question, exc.reason, exc.detail)
    return explain_call(authorizer, question, target.path, target.segments)
