"""A call goes on only when everything that it rests on is on disk, and is told once."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from sidecar.authz.reasons import Reason
from sidecar.errors import OrderRefused, StateError, UnavailableError
from sidecar.proxy.opening import open_durably
from tests.fakes.data_plane import ALLOW, GRANTED, DataPlane, in_memory, turn

STRICT = replace(ALLOW, audit_strict=True)


def begin(plane: DataPlane, verdict=GRANTED):
    told: list[Reason | None] = []
    written: list[str] = []
    open_durably(plane.inbound._context, verdict, "01J", lambda: written.append("open"), told.append)
    return told, written


@pytest.mark.parametrize("order", list(itertools.permutations(["use", "line"])))
@pytest.mark.parametrize("good", list(itertools.product([True, False], repeat=2)))
@in_memory
async def test_both_have_to_be_on_disk_in_whatever_order(order: tuple[str, str], good: tuple[bool, bool]):
    plane = DataPlane()
    told, written = begin(plane)
    assert (written, plane.grants.uses) == (["open"], [("g1", "01J")])
    for step, is_good in zip(order, good, strict=True):
        assert told in ([], [Reason.AUDIT_UNAVAILABLE])
        if step == "line":
            plane.audit.settle(is_good)
        elif is_good:
            plane.grants.futures[0].set_result(None)
        else:
            plane.grants.futures[0].set_exception(StateError("no"))
        await turn()
    assert told == [None if all(good) else Reason.AUDIT_UNAVAILABLE]


@in_memory
async def test_a_strict_scope_needs_its_line_only():
    plane = DataPlane()
    told, written = begin(plane, STRICT)
    assert (told, written, plane.grants.uses) == ([], ["open"], [])
    plane.audit.settle()
    assert told == [None]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OrderRefused("used-up", "no"), Reason.SCOPE),
        (StateError("no"), Reason.AUDIT_UNAVAILABLE),
        (UnavailableError("no"), Reason.AUDIT_UNAVAILABLE),
    ],
)
@in_memory
async def test_a_use_that_is_not_reserved_leaves_no_line(error: Exception, reason: Reason):
    plane = DataPlane()
    plane.grants.error = error
    told, written = begin(plane)
    assert (told, written) == ([reason], [])


@in_memory
async def test_what_the_grant_lifted_stands_again():
    plane = DataPlane()
    plane.grants.left = 0
    told, _ = begin(plane, replace(GRANTED, lifted=("purpose", "task-required")))
    assert told == [Reason.PURPOSE]
