"""Errors carry what the answer, the record and the metric need."""

from __future__ import annotations

import pytest

from sidecar.authz.reasons import Reason
from sidecar.errors import SidecarError
from sidecar.proxy.errors import (
    MessageError,
    UpstreamError,
    malformed,
    too_large,
    upstream_invalid,
    upstream_timeout,
    upstream_unreachable,
)


def test_errors_of_the_message() -> None:
    error = malformed("two lengths")
    assert (error.status, error.reason, error.detail, error.limit) == (
        400,
        Reason.MALFORMED,
        "two lengths",
        None,
    )
    error = too_large(431, "too many", "header_fields")
    assert (error.status, error.reason, error.limit) == (431, Reason.TOO_LARGE, "header_fields")
    assert str(error) == "too many" and isinstance(error, SidecarError)
    assert not isinstance(error, UpstreamError)


@pytest.mark.parametrize(
    ("error", "status", "reason", "outcome"),
    [
        (upstream_invalid("x"), 502, Reason.UPSTREAM_INVALID, "invalid"),
        (upstream_unreachable("x"), 503, Reason.UPSTREAM_UNREACHABLE, "unreachable"),
        (upstream_timeout("x"), 504, Reason.UPSTREAM_TIMEOUT, "timeout"),
    ],
)
def test_errors_of_the_upstream(error: UpstreamError, status: int, reason: Reason, outcome: str) -> None:
    assert (error.status, error.reason, error.outcome, error.detail) == (status, reason, outcome, "x")
    assert isinstance(error, SidecarError) and not isinstance(error, MessageError)


def test_the_limit_that_the_upstream_broke_has_a_name() -> None:
    assert upstream_invalid("x", "answer_head_bytes").limit == "answer_head_bytes"
    assert upstream_invalid("x").limit is upstream_timeout("x").limit is None
