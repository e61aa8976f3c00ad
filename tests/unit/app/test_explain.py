from __future__ import annotations

import pytest

from sidecar.app.explain import explain
from sidecar.review.question import build_question
from tests.unit.authz.conversation import WEB, World


@pytest.mark.parametrize(
    ("method", "path", "reason", "canonical"),
    [
        ("GET", "/x/../orders/%34?q", "policy", "/orders/4"),
        ("PUT", "/orders/4", "scope", "/orders/4"),
        ("GET", "/orders;v=1", "malformed", None),
        ("GET", "/..", "malformed", None),
        ("CONNECT", "/orders", "method", None),
    ],
)
def test_a_call_is_read_as_the_data_plane_reads_it(method, path, reason, canonical):
    answer = explain(World().authorizer, build_question(WEB, method, path))
    assert (answer["reason"], answer["path"]) == (reason, canonical)
