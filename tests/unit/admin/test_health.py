from __future__ import annotations

import pytest

from sidecar.admin.health import Check, Health, render_health

GOOD, BAD = Check("policy", True), Check("svid", False, "ended at noon")


@pytest.mark.parametrize(
    ("checks", "ok"),
    [((), False), ((BAD,), False), ((GOOD, BAD), False), ((GOOD,), True), ((GOOD, GOOD), True)],
)
def test_one_failed_check_or_none_at_all_is_not_healthy(checks, ok):
    assert Health(checks).ok is ok


def test_the_page():
    health = Health((GOOD, BAD))
    assert render_health("readyz", health, verbose=False) == "failed\n"
    assert render_health("readyz", health, verbose=True) == (
        "[+]policy ok\n[-]svid failed: ended at noon\nreadyz failed\n"
    )
    assert render_health("livez", Health((GOOD,)), verbose=False) == "ok\n"
    assert render_health("livez", Health((GOOD,)), verbose=True) == "[+]policy ok\nlivez ok\n"
