from __future__ import annotations

import pytest

from sidecar.authz.reasons import ROWS, Group, Reason, render_reasons

DESIGNED = {
    Group.DECISION: """unknown-identity identity-expired svid-expired untrusted locked scope rule purpose
        task-required task-invalid task-binding task-revoked task-scope rate task-budget brownout
        policy-unavailable audit-unavailable""",
    Group.MESSAGE: "malformed method misdirected expectation too-large timeout",
    Group.SERVICE: """upstream-unreachable upstream-identity upstream-invalid upstream-timeout destination
        overloaded draining internal""",
}


def test_the_set_of_codes_is_closed():
    for group, codes in DESIGNED.items():
        assert [reason.value for reason in Reason if ROWS[reason].group is group] == codes.split()


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_its_row(reason):
    lines = [line for line in render_reasons().splitlines() if line.startswith(f"| `{reason.value}` |")]
    assert len(lines) == 1 and lines[0].count("|") == 6
    row = ROWS[reason]
    assert row.meaning.strip() and row.remedy.strip() and row.who


def test_the_page_ends_with_a_newline():
    assert render_reasons().endswith("|\n")
