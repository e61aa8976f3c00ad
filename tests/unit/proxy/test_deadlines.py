"""Each deadline of a call: a moment before, at it, and who is to blame."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.proxy.deadlines import Late, Progress, find_overdue
from sidecar.proxy.limits import ProxyLimits

LIMITS = ProxyLimits(request_timeout_s=100, stream_idle_timeout_s=40, upstream_response_timeout_s=15)
SENT = Progress(
    started_s=0.0, active_s=0.0, forwarded_s=0.0, has_answer=False, is_streaming=False, waits_for_caller=False
)
ANSWERING = replace(SENT, has_answer=True, active_s=90.0)
UPLOADING = replace(SENT, forwarded_s=None, waits_for_caller=True)


@pytest.mark.parametrize(
    ("progress", "at_s", "limit", "late"),
    [
        (SENT, 15.0, "upstream_response_timeout", Late.UPSTREAM),
        (replace(SENT, is_streaming=True), 15.0, "upstream_response_timeout", Late.UPSTREAM),
        (replace(SENT, waits_for_caller=True), 15.0, "upstream_response_timeout", Late.UPSTREAM),
        (UPLOADING, 40.0, "stream_idle_timeout", Late.CALLER),
        (replace(UPLOADING, waits_for_caller=False), 40.0, "stream_idle_timeout", Late.UPSTREAM),
        (replace(SENT, has_answer=True), 40.0, "stream_idle_timeout", Late.UPSTREAM),
        (ANSWERING, 100.0, "request_timeout", Late.UPSTREAM),
        (replace(ANSWERING, is_streaming=True), 130.0, "stream_idle_timeout", Late.UPSTREAM),
        (replace(UPLOADING, active_s=99.0), 100.0, "request_timeout", Late.CALLER),
    ],
)
def test_a_deadline_strikes_at_its_moment(progress: Progress, at_s: float, limit: str, late: Late):
    assert find_overdue(progress, LIMITS, at_s - 0.01) is None
    assert find_overdue(progress, LIMITS, at_s) == (limit, late)


def test_a_stream_that_moves_has_no_end():
    assert find_overdue(replace(ANSWERING, is_streaming=True, active_s=1e6), LIMITS, 1e6 + 1) is None
