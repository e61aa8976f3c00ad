from __future__ import annotations

from sidecar.audit.refusals import Refusals


def test_calls_beyond_the_hundredth_are_told_in_one_line():
    refusals = Refusals()
    admitted = [
        refusals.admit_call("spiffe://demo.test/web", "scope", f"id-{n}", 1.0, 60.0 + n) for n in range(103)
    ]
    assert admitted == [True] * 100 + [False] * 3
    assert refusals.summed == 3 and refusals.has_sums
    assert refusals.collect(1.5) == []
    assert refusals.collect(2.0) == [
        (
            "denials",
            {
                "caller": {"id": "spiffe://demo.test/web"},
                "decision": {"effect": "deny", "reason": "scope"},
                "count": 3,
                "from": "1970-01-01T00:02:40.000000Z",
                "to": "1970-01-01T00:02:42.000000Z",
                "first": "id-100",
                "last": "id-102",
            },
        )
    ]


def test_a_handshake_marks_what_was_claimed_as_unproven():
    refusals = Refusals()
    line = refusals.admit_handshake("10.0.0.9", "X5-17", "not signed", "spiffe://demo.test/web", 1.0, 60.0)
    assert line == (
        "handshake",
        {
            "source": "10.0.0.9",
            "rule": "X5-17",
            "detail": "not signed",
            "claimed": "spiffe://demo.test/web",
            "unverified": True,
        },
    )


def test_what_a_stranger_sends_is_cut_to_a_length():
    line = Refusals().admit_handshake("::1", "chain", "d" * 10_000, "c" * 100_000, 1.0, 60.0)
    assert line is not None
    assert len(line[1]["claimed"]) == 2048 and len(line[1]["detail"]) == 512
    assert Refusals().admit_handshake("::1", "chain", "", None, 1.0, 60.0)[1]["claimed"] is None


def test_handshakes_are_summed_by_address_and_rule_and_apart_from_calls():
    refusals = Refusals()
    lines = [refusals.admit_handshake("10.0.0.9", "not-tls", "", None, 1.0, 60.0) for _ in range(105)]
    assert sum(line is not None for line in lines) == 100
    ((event, body),) = refusals.collect(None)
    assert (event, body["source"], body["rule"], body["count"]) == ("handshakes", "10.0.0.9", "not-tls", 5)
    assert not refusals.has_sums
