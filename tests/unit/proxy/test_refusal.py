"""Statuses of denials, and the order of record and answer."""

from __future__ import annotations

import pytest

from sidecar.audit.record import Intent
from sidecar.authz.reasons import Reason
from sidecar.proxy.accounts import build_caller, build_denial
from sidecar.proxy.refusal import Refusal, answer_recorded, status_of
from tests.fakes.data_plane import DataPlane, make_peer


def make_refusal() -> Refusal:
    return Refusal(
        "01J",
        1.0,
        1000.0,
        403,
        Reason.SCOPE,
        "no",
        build_caller(make_peer()),
        Intent("GET", "/"),
        build_denial(Reason.SCOPE),
        "00-x",
        close=False,
        limit="some",
    )


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_status_that_refuses(reason: Reason):
    assert status_of(reason) in (403, 429, 503)
    assert (status_of(reason) == 429) == (reason is Reason.RATE)


def test_the_answer_comes_after_the_record_is_on_disk():
    plane, told = DataPlane(), []
    answer_recorded(plane.inbound._context, make_refusal(), lambda *answer: told.append(answer))
    assert told == []
    assert plane.line().decision.reason == "scope"
    plane.audit.settle()
    ((refusal, data),) = told
    assert refusal.status == 403
    assert data.startswith(b"HTTP/1.1 403 ")
    assert plane.struck("some") == 1


@pytest.mark.parametrize("lost", ["before", "after"])
def test_without_a_record_the_answer_is_another(lost: str):
    plane, told = DataPlane(), []
    plane.audit.available = lost == "after"
    answer_recorded(plane.inbound._context, make_refusal(), lambda *answer: told.append(answer))
    plane.audit.settle(False)
    ((refusal, data),) = told
    assert (refusal.status, refusal.reason, refusal.close) == (503, Reason.AUDIT_UNAVAILABLE, True)
    assert data.startswith(b"HTTP/1.1 503 ")
    assert len(plane.audit.lines) == (lost == "after")
