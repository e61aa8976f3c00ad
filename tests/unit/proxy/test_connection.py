"""The caller's side: heads, pipelining, refusals, half-closes, deadlines, the end of a connection's life."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sidecar.proxy.limits import ProxyLimits
from tests.fakes.data_plane import ALLOW, DENY, GET, OK, DataPlane, in_memory, turn

POST_5 = b"POST /orders HTTP/1.1\r\nHost: orders.test\r\nContent-Length: 5\r\n\r\n"


def problem(data: bytes) -> dict[str, object]:
    """The document of the one problem answer in ``data``."""
    head, _, body = data.partition(b"\r\n\r\n")
    document = json.loads(body)
    assert f"\r\nsidecar-reason: {document['reason']}\r\n".encode() in head + b"\r\n"
    assert f"\r\nx-request-id: {document['request_id']}\r\n".encode() in head + b"\r\n"
    return document


# Refusals


@in_memory
async def test_a_denial_is_answered_once_it_is_on_disk_and_the_connection_goes_on():
    plane = DataPlane(DENY)
    caller = plane.caller()
    caller.feed(GET)
    assert caller.take() == b""
    plane.audit.settle()
    document = problem(caller.take())
    line = plane.line()
    assert (document["status"], document["reason"], document["request_id"]) == (403, "scope", line.call_id)
    assert document["detail"] == "no scope permits it"
    assert (line.decision.effect, line.decision.reason, line.decision.policy) == ("deny", "scope", "sha256:0")
    assert (line.outcome.status, line.outcome.upstream) == (403, "none")
    assert line.caller.owner == "team"
    assert plane.service.links == []
    assert not caller.is_closed
    plane.judge.verdict = ALLOW
    caller.feed(GET)
    await turn()
    assert plane.service.link.take()
    assert plane.metrics.requests.labels("inbound", "GET", "403", "deny", "scope").value == 1
    assert plane.metrics.verdicts.labels("deny", "scope").value == 1


@in_memory
async def test_a_denial_that_cannot_be_recorded_is_another_answer():
    plane = DataPlane(DENY)
    caller = plane.caller()
    caller.feed(GET)
    plane.audit.settle(False)
    assert problem(caller.take())["reason"] == "audit-unavailable"
    assert caller.is_closed


@in_memory
async def test_a_denial_that_is_only_summed_is_answered_at_once():
    plane = DataPlane(DENY)
    plane.audit.sums_denials = True
    caller = plane.caller()
    caller.feed(GET * 100)
    assert caller.take().count(b"HTTP/1.1 403 ") == 100
    assert plane.audit.waiting == []


@in_memory
async def test_without_a_log_nothing_is_decided_and_nothing_forwarded():
    plane = DataPlane()
    caller = await plane.warm_caller()
    plane.judge.calls.clear()
    plane.audit.available = False
    caller.feed(GET)
    document = problem(caller.take())
    assert (document["status"], document["reason"]) == (503, "audit-unavailable")
    assert caller.is_closed
    assert plane.judge.calls == []
    assert plane.service.link.take() == b""
    assert plane.audit.lines == []
    assert plane.metrics.requests.labels("inbound", "GET", "503", "deny", "audit-unavailable").value == 1
    assert plane.audit.unrecorded == 1


@pytest.mark.parametrize(
    ("reason", "status"),
    [("rate", 429), ("policy-unavailable", 503), ("internal", 503), ("unknown-identity", 403), ("task-required", 403)],
)  # fmt: skip
@in_memory
async def test_reasons_have_their_statuses(reason: str, status: int):
    plane = DataPlane(replace(DENY, reason=reason, retry_after_s=7))
    caller = plane.caller()
    caller.feed(GET)
    plane.audit.settle()
    answer = caller.take()
    assert problem(answer)["status"] == status
    assert (b"\r\nretry-after: 7\r\n" in answer) == (reason == "rate")


@in_memory
async def test_an_effect_that_is_not_allow_is_a_denial():
    plane = DataPlane(replace(DENY, effect="perhaps"))  # type: ignore[arg-type]
    caller = plane.caller()
    caller.feed(GET)
    await turn()
    assert plane.service.links == []
    assert plane.inbound.open_calls == 0


@pytest.mark.parametrize("came", [b"", b"he", b"hello"])
@in_memory
async def test_no_byte_of_a_denied_body_is_forwarded_and_a_small_one_is_read_away(came: bytes):
    plane = DataPlane(DENY)
    caller = plane.caller()
    caller.feed(POST_5 + came)
    plane.audit.settle()
    assert problem(caller.take())["status"] == 403
    plane.judge.verdict = ALLOW
    caller.feed(b"hello"[len(came) :] + GET)
    await turn()
    assert plane.service.link.take().startswith(b"GET ")
    assert not caller.is_closed


@pytest.mark.parametrize("when", ["before", "after"])
@in_memory
async def test_the_rest_of_a_denied_body_may_come_while_the_denial_is_written(when: str):
    plane = DataPlane(DENY)
    caller = plane.caller()
    caller.feed(POST_5)
    if when == "before":
        caller.feed(b"hello" + GET)
    plane.audit.settle()
    if when == "after":
        caller.feed(b"hello" + GET)
    plane.audit.settle()
    assert caller.take().count(b"HTTP/1.1 403 ") == 2
    assert [line.intent.method for line in plane.audit.lines] == ["POST", "GET"]


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 65537",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 5\r\nExpect: 100-continue",
    ],
)
@in_memory
async def test_a_denied_body_that_is_large_or_may_not_come_ends_the_connection(fields: bytes):
    plane = DataPlane(DENY)
    caller = plane.caller()
    caller.feed(b"POST /orders HTTP/1.1\r\nHost: orders.test\r\n" + fields + b"\r\n\r\n")
    plane.audit.settle()
    answer = caller.take()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert b"100 Continue" not in answer
    assert caller.is_closed


@in_memory
async def test_a_denied_head_request_has_no_body_in_its_answer():
    plane = DataPlane(DENY)
    caller = plane.caller()
    caller.feed(GET.replace(b"GET", b"HEAD"))
    plane.audit.settle()
    assert caller.take().endswith(b"\r\n\r\n")
    assert plane.line().outcome.sent == 0


@in_memory
async def test_a_caller_who_leaves_before_its_denial_is_written_is_no_trouble():
    plane = DataPlane(DENY)
    caller = plane.caller()
    caller.feed(GET)
    caller.lose()
    plane.audit.settle()
    assert caller.take() == b""
    assert plane.line().decision.effect == "deny"


# Bad messages


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /orders/42 HTTP/1.1\r\n\r\n", 400),
        (b"GET /orders/42 HTTP/1.1\nHost: orders.test\n\n", 400),
        (b"GET /orders//42 HTTP/1.1\r\nHost: orders.test\r\n\r\n", 400),
        (b"TRACE / HTTP/1.1\r\nHost: orders.test\r\n\r\n", 405),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000, 414),
        (b"GET / HTTP/1.1\r\nHost: orders.test\r\nx: " + b"y" * 40000, 431),
        (GET.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: gzip\r\n\r\n"), 501),
        (GET.replace(b"\r\n\r\n", b"\r\nExpect: 200-ok\r\n\r\n"), 417),
    ],
)
@in_memory
async def test_a_bad_message_is_refused_with_a_record_and_ends_the_connection(data: bytes, status: int):
    plane = DataPlane()
    caller = await plane.warm_caller()
    plane.judge.calls.clear()
    caller.feed(data)
    plane.audit.settle()
    answer = caller.take()
    document = problem(answer)
    assert document["status"] == status
    assert b"\r\nconnection: close\r\n" in answer
    assert caller.is_closed
    caller.feed(GET)
    assert plane.service.link.take() == b""
    assert plane.judge.calls == []
    line = plane.line()
    assert (line.call_id, line.decision.effect) == (document["request_id"], "deny")
    assert (line.decision.reason, line.outcome.status) == (document["reason"], status)
    assert (line.caller.id, line.caller.owner) == ("spiffe://demo.test/web", None)


@pytest.mark.parametrize(("data", "limit"), [(b"GET /" + b"x" * 9000, "request_line")])
@in_memory
async def test_a_limit_that_strikes_is_counted(data: bytes, limit: str):
    plane = DataPlane()
    caller = plane.caller()
    caller.feed(data)
    assert plane.struck(limit) == 1


# Pipelining


@in_memory
async def test_requests_in_the_same_bytes_are_answered_in_order():
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    caller.feed(b"".join(GET.replace(b"42", b"%d" % number) for number in range(3)))
    for number in range(3):
        assert service.take().startswith(b"GET /orders/%d " % number)
        assert caller.take() == b""
        service.feed(OK.replace(b"ok", b"%02d" % number))
        assert caller.take().endswith(b"%02d" % number)


@in_memory
async def test_requests_may_be_cut_anywhere():
    data = GET + POST_5 + b"hello" + GET
    for cut in range(1, len(data)):
        plane = DataPlane()
        caller = await plane.warm_caller()
        service = plane.service.link
        caller.feed(data[:cut])
        caller.feed(data[cut:])
        for method in (b"GET", b"POST", b"GET"):
            assert service.take().startswith(method + b" ")
            service.feed(OK)
        assert caller.take().count(b"HTTP/1.1 200 ") == 3
        assert len(plane.audit.lines) == 3


@in_memory
async def test_what_is_pipelined_waits_in_a_bounded_buffer():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    fed = 0
    while not caller.is_paused:
        caller.feed(GET * 20)
        fed += 20
    assert fed * len(GET) <= 64 * 1024 + 20 * len(GET)
    service = plane.service.link
    service.feed(OK)
    for _ in range(fed):
        service.feed(OK)
    assert caller.take().count(b"HTTP/1.1 200 ") == fed + 1
    assert not caller.is_paused


@in_memory
async def test_a39_garbage_after_a_request_does_not_touch_its_answer():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET + b"\x00garbage\r\n\r\n")
    plane.service.link.feed(OK)
    assert caller.take().endswith(b"ok")
    plane.audit.settle()
    assert problem(caller.take())["status"] == 400
    assert caller.is_closed


@in_memory
async def test_a39_what_follows_connection_close_is_not_served():
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    caller.feed(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
    service.feed(OK)
    answer = caller.take()
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b"ok")
    assert caller.is_closed
    assert service.take().count(b"GET ") == 1
    assert len(plane.audit.lines) == 1


@in_memory
async def test_a_caller_who_does_not_read_is_not_served_further():
    plane = DataPlane(DENY)
    plane.audit.sums_denials = True
    caller = plane.caller()
    caller.is_stuck = True
    caller.feed(GET * 1000)
    served = len(plane.audit.lines)
    assert served < 300
    assert caller.most_buffered < 66_000
    caller.flush()
    while caller.buffered:
        caller.flush()
    assert len(plane.audit.lines) == 1000


# Deadlines


@in_memory
async def test_d1_a_head_has_one_deadline_from_its_first_byte():
    plane = DataPlane()
    caller = plane.caller()
    plane.advance(60)
    for byte in GET[:39]:
        caller.feed(bytes([byte]))
        plane.advance(0.25)
    plane.audit.settle()
    assert caller.take() == b""
    plane.advance(0.5)
    plane.audit.settle()
    document = problem(caller.take())
    assert (document["status"], document["reason"]) == (408, "timeout")
    assert caller.is_closed
    assert plane.struck("head_timeout") == 1
    assert plane.line().decision.reason == "timeout"


@in_memory
async def test_the_next_head_has_a_deadline_of_its_own():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET[:10])
    plane.advance(9)
    caller.feed(GET[10:] + GET[:10])
    plane.advance(9)
    plane.service.link.feed(OK)
    plane.advance(9)
    assert not caller.is_closed
    plane.advance(1.25)
    plane.audit.settle()
    assert b"HTTP/1.1 408 " in caller.take()


@in_memory
async def test_d27_an_idle_connection_is_closed():
    plane = DataPlane()
    caller = await plane.warm_caller()
    plane.advance(299)
    assert not caller.is_closed
    plane.advance(2)
    assert (caller.is_closed, caller.is_aborted, caller.take()) == (True, False, b"")
    assert plane.struck("idle_timeout") == 1
    assert plane.audit.lines == []


@in_memory
async def test_a_closing_connection_that_does_not_get_rid_of_its_bytes_is_reset():
    plane = DataPlane(DENY)
    caller = plane.caller()
    caller.is_stuck = True
    caller.feed(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    plane.audit.settle()
    assert (caller.is_closed, caller.is_aborted) == (True, False)
    plane.advance(30.5)
    assert caller.is_aborted


# Half-closes


@in_memory
async def test_an_idle_caller_who_ends_is_closed_on():
    plane = DataPlane()
    caller = plane.caller()
    caller.feed_end()
    assert caller.is_closed
    assert plane.audit.lines == []


@in_memory
async def test_a_head_cut_short_is_a_bad_message():
    plane = DataPlane()
    caller = plane.caller()
    caller.feed(GET[:-4])
    caller.feed_end()
    plane.audit.settle()
    assert problem(caller.take())["reason"] == "malformed"
    assert caller.is_closed


@in_memory
async def test_a_denied_caller_who_half_closed_gets_its_answer():
    plane = DataPlane(DENY)
    caller = plane.caller()
    caller.feed(GET)
    caller.feed_end()
    assert not caller.is_closed
    plane.audit.settle()
    assert problem(caller.take())["status"] == 403
    assert caller.is_closed


# The end of a connection's life


@in_memory
async def test_the_end_is_announced_and_then_kept():
    plane = DataPlane(limits=ProxyLimits(max_connection_age_s=100, idle_timeout_s=1000))
    caller, idle = plane.caller(), plane.caller()
    plane.advance(89)
    assert not idle.is_closed
    caller.feed(GET)
    await turn()
    plane.service.link.feed(OK)
    answer = caller.take()
    assert answer.endswith(b"ok")
    assert b"connection" not in answer
    caller.feed(GET)
    plane.advance(2)
    assert (idle.is_closed, caller.is_closed) == (True, False)
    plane.service.link.feed(OK)
    assert b"\r\nconnection: close\r\n" in caller.take()
    assert (caller.is_closed, caller.is_aborted) == (True, False)


@in_memory
async def test_an_answer_that_had_begun_before_the_end_was_announced_is_finished():
    plane = DataPlane(limits=ProxyLimits(max_connection_age_s=100))
    caller = await plane.warm_caller()
    plane.advance(85)
    caller.feed(GET)
    await turn()
    plane.service.link.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
    plane.advance(20)
    plane.service.link.feed(b"abc")
    assert caller.take().endswith(b"abc")
    assert caller.is_closed


@pytest.mark.parametrize("whose", ["peer", "own"])
@pytest.mark.parametrize("state", ["idle", "call", "answer"])
@in_memory
async def test_when_a_certificate_ends_the_connection_ends_with_everything_on_it(whose: str, state: str):
    plane = DataPlane()
    await plane.warm_caller()
    end_s = plane.clock.wall_s() + 20
    caller = plane.caller(**{"not_after_s" if whose == "peer" else "own_not_after_s": end_s})
    plane.advance(17)
    if state != "idle":
        caller.feed(GET)
    if state == "answer":
        plane.service.link.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
    plane.advance(2.75)
    assert not caller.is_aborted
    plane.advance(0.5)
    if state == "idle":
        assert caller.is_closed
        return
    assert caller.is_aborted
    assert plane.service.link.is_aborted
    line = plane.audit.lines[-1]
    assert (line.event, line.outcome.cut) == ("call", "svid-expired")


@in_memory
async def test_no_call_begins_after_a_certificates_end_even_between_two_sweeps():
    plane = DataPlane()
    await plane.warm_caller()
    caller = plane.caller(own_not_after_s=plane.clock.wall_s() + 20)
    plane.clock.advance(20)
    caller.feed(GET)
    plane.audit.settle()
    assert problem(caller.take())["reason"] == "svid-expired"
    assert caller.is_closed
    assert plane.service.link.take() == b""
    assert plane.judge.calls[1:] == []


@in_memory
async def test_rel20_a_wall_clock_set_back_makes_no_certificate_last_longer():
    plane = DataPlane()
    await plane.warm_caller()
    caller = plane.caller(not_after_s=plane.clock.wall_s() + 20)
    caller.feed(GET)
    plane.service.link.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
    plane.clock.step_wall(-3600)
    plane.advance(19.75)
    assert not caller.is_aborted
    plane.advance(0.5)
    assert caller.is_aborted


# Our own mistakes


@in_memory
async def test_a_judge_that_fails_is_500_and_no_call(caplog: pytest.LogCaptureFixture):
    plane = DataPlane(RuntimeError("broken"))
    caller, other = plane.caller(), plane.caller()
    caller.feed(GET)
    plane.audit.settle()
    document = problem(caller.take())
    assert (document["status"], document["reason"]) == (500, "internal")
    assert caller.is_closed
    assert plane.line().decision.reason == "internal"
    assert "broken" in caplog.text
    plane.judge.verdict = ALLOW
    other.feed(GET)
    await turn()
    assert plane.service.link.take()


@in_memory
async def test_a_log_that_fails_while_a_failure_is_told_ends_the_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    plane = DataPlane(DENY)
    caller = plane.caller()

    def fail(*_: object) -> bool:
        raise OSError("no log")

    monkeypatch.setattr(plane.audit, "record_denial", fail)
    caller.feed(GET)
    assert caller.is_aborted
    assert caller.take() == b""
    assert "no log" in caplog.text


def test_the_connection_has_no_dict():
    caller = DataPlane().caller()
    assert not hasattr(caller.protocol, "__dict__")


@in_memory
async def test_a_request_that_is_repeated_is_judged_every_time_and_a_bad_one_is_not_taken_for_it():
    plane = DataPlane()
    caller = await plane.warm_caller()
    for _ in range(3):
        caller.feed(GET)
        plane.service.link.feed(OK)
    assert len(plane.judge.calls) == 4
    ids = {line.call_id for line in plane.audit.lines}
    assert len(ids) == 3
    caller.feed(GET.replace(b"Host", b"Host "))
    assert plane.audit.lines[-1].intent.path is None
    assert plane.audit.lines[-1].decision.reason == "malformed"


@in_memory
async def test_an_idle_connection_keeps_nothing_of_its_last_request():
    plane = DataPlane()
    caller = await plane.warm_caller()
    reception = caller.protocol._reception
    assert reception._last_request is not None
    plane.advance(0.5)
    assert (reception._last_request, reception._last_head) == (None, b"")
    caller.feed(GET)
    assert plane.service.link.take().startswith(b"GET ")


@in_memory
async def test_a_caller_who_ends_inside_a_denied_body_is_closed_on_at_once():
    plane = DataPlane(DENY)
    caller = plane.caller()
    caller.feed(POST_5 + b"he")
    caller.feed_end()
    plane.audit.settle()
    assert caller.take().startswith(b"HTTP/1.1 403 ")
    assert caller.is_closed


@in_memory
async def test_nothing_is_written_to_a_caller_who_has_left():
    plane = DataPlane(DENY)
    caller = plane.caller()
    caller.feed(GET)
    caller.lose()
    plane.audit.settle()
    assert caller.attempts == 0


@in_memory
async def test_a_denied_caller_who_does_not_read_is_not_judged_further():
    plane = DataPlane(DENY)
    caller = plane.caller()
    caller.is_stuck = True
    caller.write(b"x" * 70_000)
    caller.feed(GET * 3)
    plane.audit.settle()
    assert len(plane.audit.lines) == 1
    caller.flush()
    assert len(plane.audit.lines) == 2


@in_memory
async def test_rel33_a_caller_who_ends_while_its_requests_wait_gets_all_its_answers():
    plane = DataPlane(DENY)
    plane.audit.sums_denials = True
    caller = plane.caller()
    caller.is_stuck = True
    caller.feed(GET * 500)
    caller.feed_end()
    assert not caller.is_closed
    while caller.buffered:
        caller.flush()
    assert caller.take().count(b"HTTP/1.1 403 ") == 500
    assert caller.is_closed
