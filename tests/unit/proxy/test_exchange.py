"""Conversations: bytes of a caller and of the service, and what each of them and the log get to see."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from sidecar.authz.reasons import Reason
from sidecar.errors import StateError
from sidecar.proxy.limits import ProxyLimits
from tests.fakes.data_plane import ALLOW, GET, GRANTED, OK, DataPlane, in_memory, turn

POST = b"POST /orders HTTP/1.1\r\nHost: orders.test\r\n"
CHUNKS = b"2\r\nok\r\n0\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
PUT_5 = b"PUT /orders/42 HTTP/1.1\r\nHost: orders.test\r\nContent-Length: 5\r\n\r\n"


def head_of(data: bytes) -> bytes:
    """The head of one message, lower case."""
    return data.partition(b"\r\n\r\n")[0].lower()


def body_of(data: bytes) -> bytes:
    return data.partition(b"\r\n\r\n")[2]


def reason_of(data: bytes) -> str:
    """The reason of a problem answer, which says the same three times over."""
    problem = json.loads(body_of(data))
    assert f"sidecar-reason: {problem['reason']}".encode() in head_of(data)
    assert f"x-request-id: {problem['request_id'].lower()}".encode() in head_of(data)
    return problem["reason"]


@in_memory
async def test_a_call_goes_through_in_one_write_each_way_and_leaves_one_record():
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    writes = caller.writes, service.writes
    caller.feed(GET.replace(b"\r\n\r\n", b"\r\nCall-Purpose: checkout\r\n\r\n"))
    request = service.take()
    service.feed(OK)
    answer = caller.take()
    assert (caller.writes, service.writes) == (writes[0] + 1, writes[1] + 1)
    assert request.startswith(b"GET /orders/42 HTTP/1.1\r\nhost: orders.test\r\n")
    assert b"URI=spiffe://demo.test/web\r\n" in request
    line = plane.line()
    assert line.event == "call"
    assert (line.caller.id, line.caller.owner) == ("spiffe://demo.test/web", "team")
    assert (line.intent.method, line.intent.path, line.intent.route, line.intent.purpose) == (
        *("GET", "/orders/42", "/**"),
        "checkout",
    )
    assert (line.decision.effect, line.decision.reason) == ("allow", "policy")
    assert line.decision.until == "2096-10-02T07:06:40Z"
    assert (line.outcome.status, line.outcome.sent, line.outcome.upstream) == (200, 2, "ok")
    assert f"x-request-id: {line.call_id}\r\n".encode() in request
    assert f"x-request-id: {line.call_id}\r\n".encode() in answer
    assert f"traceparent: {line.trace}\r\n".encode() in request
    assert body_of(answer) == b"ok"
    assert b"connection" not in head_of(answer)
    assert plane.metrics.requests.labels("inbound", "GET", "200", "allow", "policy").value == 2
    assert plane.metrics.verdicts.labels("allow", "policy").value == 2


@in_memory
async def test_a_trace_is_continued_with_a_span_of_our_own():
    plane = DataPlane()
    caller = await plane.warm_caller()
    trace, span = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
    caller.feed(GET.replace(b"\r\n\r\n", b"\r\ntraceparent: 00-" + trace + b"-" + span + b"-01\r\n\r\n"))
    request = plane.service.link.take()
    assert b"traceparent: 00-" + trace in request
    assert span not in request


# The request's body


@in_memory
async def test_a_body_that_comes_with_its_head_goes_on_in_the_same_write():
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    before = service.writes
    caller.feed(PUT_5 + b"hello")
    assert service.writes == before + 1
    assert service.take().endswith(b"\r\n\r\nhello")
    service.feed(OK)
    assert plane.line().outcome.received == 5


@in_memory
async def test_chunks_are_written_anew():
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    caller.feed(CHUNKED + b"5;ext=1\r\nhello\r\n")
    assert body_of(service.take()) == b"5\r\nhello\r\n"
    caller.feed(b"3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert service.take() == b"3\r\nabc\r\n0\r\n\r\n"
    service.feed(OK)
    assert body_of(caller.take()) == b"ok"
    assert plane.line().outcome.received == 8


@in_memory
async def test_an_empty_chunked_body_keeps_its_end():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(CHUNKED + b"0\r\n\r\n")
    assert body_of(plane.service.link.take()) == b"0\r\n\r\n"


@in_memory
async def test_a34_a_get_with_a_body_is_forwarded_with_its_framing():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n") + b"abc")
    request = plane.service.link.take()
    assert b"\r\ncontent-length: 3" in head_of(request)
    assert body_of(request) == b"abc"


@pytest.mark.parametrize("bad", [b"x\r\n", b"5\r\nhelloXX0\r\n\r\n", b"3;\nabc\r\n0\r\n\r\n"])
@pytest.mark.parametrize("split", [False, True])
@in_memory
async def test_a_body_that_is_bad_from_its_beginning_has_no_byte_upstream(bad: bytes, split: bool):
    plane = DataPlane()
    caller = await plane.warm_caller()
    if split:
        caller.feed(CHUNKED)
        caller.feed(bad)
    else:
        caller.feed(CHUNKED + bad)
    plane.audit.settle()
    answer = caller.take()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head_of(answer)
    assert reason_of(answer) == "malformed"
    assert caller.is_closed
    assert plane.service.link.take() == b""
    line = plane.line()
    assert (line.decision.effect, line.decision.reason, line.outcome.status) == ("deny", "malformed", 400)


@in_memory
async def test_a_body_that_turns_bad_later_ends_the_upstreams_request_without_its_end():
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    caller.feed(CHUNKED + b"5\r\nhello\r\n")
    assert body_of(service.take()) == b"5\r\nhello\r\n"
    caller.feed(b"zz\r\n")
    assert reason_of(caller.take()) == "malformed"
    assert (service.take(), service.is_aborted, caller.is_closed) == (b"", True, True)
    line = plane.line()
    assert (line.decision.effect, line.outcome.status) == ("allow", 400)
    assert (line.outcome.upstream, line.outcome.cut) == ("incomplete", "malformed")


@pytest.mark.parametrize("request_", [PUT_5 + b"he", CHUNKED + b"5\r\nhe"], ids=["length", "chunked"])
@in_memory
async def test_a32_a_body_cut_short_by_fin_is_never_ended_upstream(request_: bytes):
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    caller.feed(request_)
    assert service.take().endswith(b"he" if b"Content-Length" in request_ else b"2\r\nhe\r\n")
    caller.feed_end()
    assert (service.take(), service.is_aborted, caller.is_closed) == (b"", True, True)
    assert caller.take().startswith(b"HTTP/1.1 400 ")
    assert plane.line().outcome.upstream == "incomplete"


@in_memory
async def test_a_body_too_large_by_its_length_is_refused_before_anything_goes_on():
    plane = DataPlane(limits=ProxyLimits(max_body_bytes=4))
    caller = await plane.warm_caller()
    caller.feed(PUT_5 + b"hello")
    plane.audit.settle()
    answer = caller.take()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert reason_of(answer) == "too-large"
    assert plane.service.link.take() == b""
    assert plane.line().decision.effect == "deny"
    assert plane.struck("body") == 1


@pytest.mark.parametrize(("size", "status"), [(3, b"200"), (4, b"200"), (5, b"413")])
@in_memory
async def test_a_chunked_body_is_measured_while_it_streams(size: int, status: bytes):
    plane = DataPlane(limits=ProxyLimits(max_body_bytes=4))
    caller = await plane.warm_caller()
    caller.feed(CHUNKED + b"1\r\nx\r\n")
    caller.feed(b"%x\r\n%b\r\n0\r\n\r\n" % (size - 1, b"y" * (size - 1)))
    service = plane.service.link
    if not service.is_aborted:
        service.feed(OK)
    assert caller.take()[9:12] == status
    assert service.is_aborted == (status == b"413")
    assert plane.struck("body") == (status == b"413")


@in_memory
async def test_the_head_waits_for_the_body_but_not_for_long():
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    caller.feed(PUT_5)
    assert service.take() == b""
    plane.advance(0.2, 0.2)
    assert service.take() == b""
    plane.advance(0.1, 0.1)
    assert service.take().startswith(b"PUT /orders/42 ")
    caller.feed(b"hello")
    assert service.take() == b"hello"


@in_memory
async def test_a35_continue_is_said_once_the_call_is_permitted_and_the_upstream_there():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(PUT_5.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert caller.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    caller.feed(b"hello")
    service = plane.service.link
    assert b"expect" not in head_of(service.take())
    service.feed(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert caller.take().startswith(b"HTTP/1.1 200 ")


@in_memory
async def test_a35_a_body_that_comes_at_once_is_not_asked_for():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(PUT_5.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n") + b"hello")
    assert caller.take() == b""
    assert plane.service.link.take().endswith(b"hello")


@in_memory
async def test_a35_an_early_final_answer_is_relayed_and_a_small_rest_is_read_away():
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    caller.feed(PUT_5 + b"he")
    service.take()
    service.feed(OK)
    assert body_of(caller.take()) == b"ok"
    assert service.is_aborted
    caller.feed(b"llo" + GET)
    await turn()
    assert plane.service.link.take().startswith(b"GET ")
    assert not caller.is_closed
    assert plane.line().outcome.received == 2


@in_memory
async def test_a35_a_large_rest_closes_the_connection_instead():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(POST + b"Content-Length: 1000000\r\n\r\nx")
    plane.service.link.feed(OK)
    for _ in range(64):
        caller.feed(b"x" * 1024)
    assert not caller.is_closed
    caller.feed(b"x")
    assert caller.is_closed


@in_memory
async def test_a_rest_that_does_not_come_closes_the_connection():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(PUT_5 + b"he")
    plane.service.link.feed(OK)
    plane.advance(0.9)
    assert not caller.is_closed
    plane.advance(0.5)
    assert caller.is_closed


# The answer


@pytest.mark.parametrize(
    ("method", "answer", "head", "body"),
    [
        ("HEAD", b"200 OK\r\ncontent-length: 764\r\n\r\n", b"content-length: 764", b""),
        ("GET", b"204 No Content\r\n\r\n", b"204", b""),
        ("GET", b"304 Not Modified\r\netag: x\r\n\r\n", b"etag: x", b""),
        ("GET", b"200 OK\r\ncontent-length: 0\r\n\r\n", b"content-length: 0", b""),
        ("GET", b"200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS, b"chunked", CHUNKS),
    ],
)  # fmt: skip
@in_memory
async def test_f15_answers_are_framed_anew_and_the_connections_go_on(
    method: str, answer: bytes, head: bytes, body: bytes
):
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET.replace(b"GET", method.encode()))
    plane.service.link.feed(b"HTTP/1.1 " + answer)
    told = caller.take()
    assert head in head_of(told)
    assert body_of(told) == body
    assert (caller.is_closed, plane.pool.idle_count) == (False, 1)
    assert plane.line().outcome.upstream == "ok"


@in_memory
async def test_an_answer_is_the_same_however_it_is_cut():
    data = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    for cut in range(1, len(data)):
        plane = DataPlane()
        caller = await plane.warm_caller()
        caller.feed(GET)
        plane.service.link.feed(data[:cut])
        plane.service.link.feed(data[cut:])
        told = caller.take()
        assert told.count(b"HTTP/1.1 ") == 2
        assert told.endswith(b"\r\n\r\nhello")
        assert plane.line().outcome.sent == 5


@in_memory
async def test_an_answer_that_ends_with_its_connection_is_chunked_for_the_caller():
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    caller.feed(GET)
    service.feed(b"HTTP/1.1 200 OK\r\n\r\nabc")
    service.feed(b"de")
    service.feed_end()
    told = caller.take()
    assert b"transfer-encoding: chunked" in head_of(told)
    assert body_of(told) == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert not caller.is_closed
    assert plane.line().outcome.upstream == "ok"


@in_memory
async def test_an_answer_that_ends_with_a_reset_has_no_last_chunk():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    plane.service.link.feed(b"HTTP/1.1 200 OK\r\n\r\nabc")
    plane.service.link.lose(ConnectionResetError())
    assert body_of(caller.take()) == b"3\r\nabc\r\n"
    assert caller.is_closed
    assert plane.line().outcome.upstream == "incomplete"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
    ids=["length", "chunked"],
)
@in_memory
async def test_rel30_a_truncated_answer_never_looks_complete(answer: bytes):
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    plane.service.link.feed(answer)
    plane.service.link.feed_end()
    assert body_of(caller.take()) == body_of(answer)
    assert (caller.is_closed, caller.is_aborted) == (True, False)
    line = plane.line()
    assert (line.outcome.status, line.outcome.upstream, line.outcome.sent) == (200, "incomplete", 3)


@in_memory
async def test_bad_chunks_in_an_answer_cut_it():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    plane.service.link.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    plane.service.link.feed(b"zz\r\n")
    assert body_of(caller.take()) == b"3\r\nabc\r\n"
    assert (caller.is_closed, plane.service.link.is_aborted) == (True, True)
    assert plane.line().outcome.upstream == "invalid"


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        OK + b"x",
        OK + OK,
        b"HTTP/1.1 204 No Content\r\n\r\nbody",
        b"HTTP/1.1 304 Not Modified\r\n\r\nbody",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 9,
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 65536,
    ],
)
@in_memory
async def test_a50_bad_bytes_from_the_upstream_are_502_and_its_connection_is_thrown_away(answer: bytes):
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    caller.feed(GET)
    service.feed(answer)
    told = caller.take()
    told = told[told.index(b"HTTP/1.1 502 ") :]
    assert reason_of(told) == "upstream-invalid"
    assert (service.is_aborted, plane.pool.idle_count, caller.is_closed) == (True, 0, False)
    line = plane.line()
    assert (line.decision.effect, line.outcome.status, line.outcome.upstream) == ("allow", 502, "invalid")
    assert plane.metrics.requests.labels("inbound", "GET", "502", "allow", "upstream-invalid").value == 1
    caller.feed(GET)
    await turn()
    plane.service.link.feed(OK)
    assert caller.take().startswith(b"HTTP/1.1 200 ")


@in_memory
async def test_a50_a_head_answered_with_a_body_is_502():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET.replace(b"GET", b"HEAD"))
    plane.service.link.feed(OK)
    assert caller.take().startswith(b"HTTP/1.1 502 ")
    assert plane.service.link.is_aborted


@in_memory
async def test_a50_what_follows_an_answer_that_has_left_ends_the_connection_only():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    plane.service.link.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
    plane.service.link.feed(b"cd" + OK)
    assert body_of(caller.take()) == b"abcd"
    assert (plane.service.link.is_aborted, plane.pool.idle_count) == (True, 0)
    assert plane.line().outcome.upstream == "ok"


@in_memory
async def test_f16_hints_are_passed_on_up_to_eight_and_continue_is_not():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\nconnection: x\r\nx: 1\r\n\r\n" * 4
    plane.service.link.feed(
        hints + b"HTTP/1.1 102 Processing\r\n\r\n" * 2 + b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + OK
    )
    told = caller.take()
    assert told.count(b"HTTP/1.1 103 ") == 4
    assert told.count(b"HTTP/1.1 102 ") == 2
    assert told.count(b"HTTP/1.1 100 ") == 0
    assert b"connection" not in told.lower()
    assert told.endswith(b"\r\n\r\nok")


@in_memory
async def test_an_http10_caller_gets_no_hints_no_chunks_and_a_close():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET.replace(b"HTTP/1.1", b"HTTP/1.0"))
    plane.service.link.feed(
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    told = caller.take()
    assert told.count(b"HTTP/1.1") == 1
    assert b"chunked" not in told
    assert body_of(told) == b"abc"
    assert caller.is_closed


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ],
)
@in_memory
async def test_an_upstream_connection_that_ends_is_not_used_again(answer: bytes):
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    plane.service.link.feed(answer)
    told = caller.take()
    assert body_of(told) == b"ok"
    assert b"connection" not in head_of(told)
    assert (plane.pool.idle_count, caller.is_closed) == (0, False)


# Grants and strict scopes


@in_memory
async def test_a_granted_call_goes_on_when_its_use_and_its_open_line_are_on_disk():
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    plane.judge.verdict = GRANTED
    caller.feed(GET)
    (line,) = plane.audit.lines
    assert (line.event, line.outcome, line.decision.grant) == ("open", None, "g1")
    assert plane.grants.uses == [("g1", line.call_id)]
    plane.audit.settle()
    await turn()
    assert service.take() == b""
    plane.grants.futures[0].set_result(None)
    await turn()
    assert service.take().startswith(b"GET ")
    service.feed(OK)
    opened, called = plane.audit.lines
    assert (called.event, called.call_id) == ("call", opened.call_id)
    assert called.decision.lifted == ("scope",)


@in_memory
async def test_a_granted_call_waits_for_its_open_line_too():
    plane = DataPlane(GRANTED)
    caller = plane.caller()
    caller.feed(GET)
    plane.grants.futures[0].set_result(None)
    await turn()
    assert plane.service.links == []
    plane.audit.settle()
    await turn()
    assert plane.service.link.take().startswith(b"GET ")


@in_memory
async def test_a_grant_without_a_use_left_denies_by_what_it_had_lifted():
    plane = DataPlane(GRANTED)
    plane.grants.left = 0
    caller = plane.caller()
    caller.feed(GET)
    plane.audit.settle()
    assert reason_of(caller.take()) == "scope"
    assert plane.service.links == []
    line = plane.line()
    assert (line.event, line.decision.effect, line.decision.reason) == ("call", "deny", "scope")


@pytest.mark.parametrize("broken", ["at once", "later", "log", "cancelled"])
@in_memory
async def test_a_granted_call_that_cannot_be_recorded_is_refused(broken: str):
    plane = DataPlane(GRANTED)
    if broken == "at once":
        plane.grants.error = StateError("the journal is closed")
    caller = plane.caller()
    caller.feed(GET)
    if broken == "later":
        plane.grants.futures[0].set_exception(StateError("no space"))
    elif broken == "cancelled":
        plane.grants.futures[0].cancel()
    else:
        plane.audit.settle(broken != "log")
    await turn()
    plane.audit.settle()
    plane.audit.settle()
    assert reason_of(caller.take()) == "audit-unavailable"
    await turn()
    assert plane.service.links == []
    assert [line.event for line in plane.audit.lines].count("call") == 1


@in_memory
async def test_a_strict_scope_has_its_open_line_on_disk_first():
    plane = DataPlane(replace(ALLOW, audit_strict=True))
    caller = plane.caller()
    caller.feed(GET)
    await turn()
    assert plane.service.links == []
    plane.audit.settle()
    await turn()
    assert plane.service.link.take().startswith(b"GET ")


@in_memory
async def test_a_granted_caller_who_leaves_meanwhile_has_nothing_forwarded():
    plane = DataPlane(GRANTED)
    caller = plane.caller()
    caller.feed(GET)
    caller.lose()
    plane.audit.settle()
    plane.grants.futures[0].set_result(None)
    await turn()
    assert plane.service.links == []
    assert [line.event for line in plane.audit.lines] == ["open", "call"]
    assert plane.audit.lines[1].outcome.upstream == "none"


# Retries


@in_memory
async def test_rel31_a_pooled_connection_that_died_costs_no_error():
    plane = DataPlane()
    caller = await plane.warm_caller()
    old = plane.service.link
    caller.feed(GET)
    assert old.take().startswith(b"GET ")
    old.lose(ConnectionResetError())
    await turn()
    assert plane.service.link is not old
    assert plane.service.link.take().startswith(b"GET ")
    plane.service.link.feed(OK)
    assert caller.take().startswith(b"HTTP/1.1 200 ")
    assert plane.line().outcome.upstream == "ok"


@pytest.mark.parametrize("case", ["post", "body", "fresh", "granted", "began", "twice"])
@in_memory
async def test_rel32_nothing_else_is_tried_twice(case: str):
    plane = DataPlane()
    caller = plane.caller() if case == "fresh" else await plane.warm_caller()
    request = {"post": GET.replace(b"GET", b"POST"), "body": PUT_5 + b"hello"}.get(case, GET)
    if case == "granted":
        plane.judge.verdict = GRANTED
    caller.feed(request)
    if case == "granted":
        plane.audit.settle()
        plane.grants.futures[0].set_result(None)
    await turn()
    assert plane.service.link.take()
    if case == "began":
        plane.service.link.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        caller.take()
    if case == "twice":
        plane.service.link.lose(None)
        await turn()
        assert plane.service.link.take()
    count = len(plane.service.links)
    plane.service.link.lose(None)
    await turn()
    assert len(plane.service.links) == count
    assert reason_of(caller.take()) == "upstream-invalid"
    assert plane.audit.lines[-1].outcome.upstream == "incomplete"


@in_memory
async def test_a_connection_that_dies_before_anything_was_sent_is_replaced_whatever_the_method():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(PUT_5)
    plane.service.link.feed(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    caller.feed(b"hello")
    await turn()
    assert plane.service.link.take().endswith(b"hello")
    plane.service.link.feed(OK)
    assert caller.take().startswith(b"HTTP/1.1 200 ")


# Failures


@in_memory
async def test_rel29_an_upstream_that_refuses_is_503():
    plane = DataPlane()
    plane.service.error = ConnectionRefusedError()
    caller = plane.caller()
    caller.feed(GET)
    await turn()
    assert reason_of(caller.take()) == "upstream-unreachable"
    assert not caller.is_closed
    line = plane.line()
    assert (line.decision.effect, line.outcome.status, line.outcome.upstream) == ("allow", 503, "unreachable")


@in_memory
async def test_rel29_a_silent_upstream_is_504():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    plane.advance(14.75)
    assert caller.take() == b""
    plane.advance(0.5)
    assert reason_of(caller.take()) == "upstream-timeout"
    assert (plane.service.link.is_aborted, caller.is_closed) == (True, False)
    assert [line.event for line in plane.audit.lines] == ["open", "call"]
    assert plane.audit.lines[1].outcome.upstream == "timeout"
    assert plane.struck("upstream_response_timeout") == 1


@in_memory
async def test_an_upstream_that_stops_in_its_answer_is_cut():
    plane = DataPlane(limits=ProxyLimits(stream_idle_timeout_s=20))
    caller = await plane.warm_caller()
    caller.feed(GET)
    plane.service.link.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
    plane.advance(19.75)
    assert not caller.is_closed
    plane.advance(0.5)
    assert caller.is_closed
    assert plane.audit.lines[-1].outcome.upstream == "timeout"
    assert plane.struck("stream_idle_timeout") == 1


@in_memory
async def test_d2_a_body_that_stops_is_408():
    plane = DataPlane(limits=ProxyLimits(stream_idle_timeout_s=20))
    caller = await plane.warm_caller()
    caller.feed(PUT_5 + b"he")
    plane.advance(20.25)
    told = caller.take()
    assert told.startswith(b"HTTP/1.1 408 ")
    assert reason_of(told) == "timeout"
    assert (caller.is_closed, plane.service.link.is_aborted) == (True, True)
    assert plane.audit.lines[-1].outcome.cut == "timeout"


@pytest.mark.parametrize("streaming", [False, True])
@in_memory
async def test_the_whole_call_has_a_deadline_unless_its_rule_is_for_streams(streaming: bool):
    plane = DataPlane(replace(ALLOW, streaming=streaming), ProxyLimits(request_timeout_s=30))
    caller = await plane.warm_caller()
    caller.feed(GET)
    service = plane.service.link
    service.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(35):
        plane.advance(1.0)
        service.feed(b"1\r\nx\r\n")
    assert caller.is_closed != streaming
    assert plane.struck("request_timeout") == (not streaming)


@in_memory
async def test_rel30_a_caller_who_leaves_ends_the_upstreams_request():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    caller.lose(ConnectionResetError())
    assert plane.service.link.is_aborted
    line = plane.line()
    assert (line.outcome.status, line.outcome.upstream) == (None, "incomplete")
    assert plane.inbound.open_calls == 0
    assert plane.inbound.connections == 0


@in_memory
async def test_rel33_a_caller_who_half_closes_gets_its_answer():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET + GET)
    caller.feed_end()
    plane.service.link.feed(OK)
    assert not caller.is_closed
    plane.service.link.feed(OK)
    assert caller.take().count(b"HTTP/1.1 200 ") == 2
    assert caller.is_closed


# Cuts


@in_memory
async def test_rel16_a_call_that_would_be_refused_now_is_cut_before_it_is_answered():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    plane.judge.generation += 1
    plane.judge.review_reason = Reason.SCOPE
    plane.advance(0.25)
    told = caller.take()
    assert told.startswith(b"HTTP/1.1 403 ")
    assert reason_of(told) == "scope"
    assert (plane.service.link.is_aborted, caller.is_closed) == (True, True)
    line = plane.line()
    assert (line.decision.effect, line.outcome.cut, line.outcome.status) == ("allow", "scope", 403)


@in_memory
async def test_rel16_a_call_that_is_being_answered_is_cut_in_the_middle():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    plane.service.link.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    plane.judge.generation += 1
    plane.judge.review_reason = Reason.LOCKED
    plane.advance(0.25)
    assert body_of(caller.take()) == b"3\r\nabc\r\n"
    assert (plane.service.link.is_aborted, caller.is_aborted) == (True, True)
    assert plane.line().outcome.cut == "locked"


@in_memory
async def test_a_call_goes_on_when_it_would_be_allowed_again():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    plane.judge.generation += 1
    plane.advance(1)
    assert plane.judge.reviews == 1
    plane.service.link.feed(OK)
    assert caller.take().startswith(b"HTTP/1.1 200 ")


@in_memory
async def test_the_end_of_its_window_has_a_call_judged_anew():
    plane = DataPlane()
    caller = await plane.warm_caller()
    plane.judge.verdict = replace(ALLOW, until_s=plane.clock.wall_s() + 2)
    plane.judge.review_reason = Reason.IDENTITY_EXPIRED
    caller.feed(GET)
    plane.advance(1.75)
    assert caller.take() == b""
    plane.advance(0.25)
    assert reason_of(caller.take()) == "identity-expired"


@in_memory
async def test_a_call_that_is_open_after_ten_seconds_has_an_open_line_with_the_same_id():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(GET)
    plane.service.link.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
    plane.advance(9.75)
    assert plane.audit.lines == []
    plane.advance(5)
    assert [line.event for line in plane.audit.lines] == ["open"]
    plane.service.link.feed(b"abc")
    opened, called = plane.audit.lines
    assert (called.event, called.call_id) == ("call", opened.call_id)


# Flow control


@in_memory
async def test_d3_a_caller_who_does_not_read_holds_the_upstream_back_and_is_reset():
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    caller.is_stuck = True
    caller.feed(GET)
    service.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
    fed = 0
    while not service.is_paused:
        service.feed(b"x" * 16384)
        fed += 16384
    assert fed <= 64 * 1024 + 16384
    assert caller.most_buffered <= 64 * 1024 + 2 * 16384
    plane.advance(30)
    assert not caller.is_closed
    plane.advance(0.5)
    assert caller.is_aborted
    assert service.is_aborted
    assert plane.audit.lines[-1].outcome.cut == "timeout"
    assert plane.struck("write_timeout") == 1


@in_memory
async def test_rel26_a_slow_reader_gets_everything_through_a_bounded_buffer():
    plane = DataPlane(replace(ALLOW, streaming=True))
    caller = await plane.warm_caller()
    service = plane.service.link
    caller.is_stuck = True
    caller.feed(GET)
    service.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 4194304\r\n\r\n")
    left = 4194304
    while left:
        assert not caller.is_closed
        if service.is_paused:
            caller.flush(10_000)
            plane.advance(1.0)
        else:
            service.feed(b"x" * min(65536, left))
            left -= min(65536, left)
    caller.flush()
    assert caller.most_buffered <= 64 * 1024 + 65536 + 512
    assert len(body_of(caller.take())) == 4194304
    assert plane.audit.lines[-1].outcome.upstream == "ok"
    assert plane.pool.idle_count == 1
    assert not service.is_paused


@in_memory
async def test_an_upstream_that_does_not_read_holds_the_caller_back():
    plane = DataPlane(limits=ProxyLimits(stream_idle_timeout_s=20))
    caller = await plane.warm_caller()
    service = plane.service.link
    service.is_stuck = True
    caller.feed(POST + b"Content-Length: 10000000\r\n\r\n")
    while not caller.is_paused:
        caller.feed(b"x" * 16384)
    assert service.most_buffered <= 64 * 1024 + 2 * 16384
    service.flush()
    assert not caller.is_paused
    while not caller.is_paused:
        caller.feed(b"x" * 16384)
    plane.advance(20.5)
    assert reason_of(caller.take()) == "upstream-timeout"


@in_memory
async def test_a_body_that_comes_before_the_upstream_is_there_is_held_up_to_a_bound():
    plane = DataPlane(GRANTED)
    caller = plane.caller()
    caller.feed(POST + b"Content-Length: 10000000\r\n\r\n")
    fed = 0
    while not caller.is_paused:
        caller.feed(b"x" * 16384)
        fed += 16384
    assert fed <= 64 * 1024 + 16384
    plane.audit.settle()
    plane.grants.futures[0].set_result(None)
    await turn()
    assert not caller.is_paused
    assert len(body_of(plane.service.link.take())) == fed


# Our own mistakes


@in_memory
async def test_an_exception_in_a_call_is_500_and_hurts_no_other(caplog: pytest.LogCaptureFixture):
    plane = DataPlane()
    caller, other = await plane.warm_caller(), plane.caller()
    other.feed(GET)
    await turn()
    caller.feed(GET)
    await turn()
    first, second = plane.service.links[:2]
    second, first = (first, second) if first.protocol.user is None else (second, first)
    first.protocol.reader = None
    first.feed(OK)
    second.feed(OK)
    answers = sorted([caller.take()[9:12], other.take()[9:12]])
    assert answers == [b"200", b"500"]
    assert "Traceback" in caplog.text
    assert sorted(line.outcome.status for line in plane.audit.lines) == [200, 500]


@in_memory
async def test_a_body_announced_too_large_is_refused_before_it_comes():
    plane = DataPlane(limits=ProxyLimits(max_body_bytes=4))
    caller = await plane.warm_caller()
    caller.feed(PUT_5)
    plane.audit.settle()
    assert caller.take().startswith(b"HTTP/1.1 413 ")
    assert plane.inbound.open_calls == 0


@in_memory
async def test_a_grant_revoked_while_its_use_is_written_opens_nothing():
    plane = DataPlane(GRANTED)
    caller = plane.caller()
    caller.feed(GET)
    plane.judge.review_reason = Reason.SCOPE
    plane.grants.futures[0].set_result(None)
    await turn()
    plane.audit.settle()
    plane.audit.settle()
    await turn()
    assert reason_of(caller.take()) == "scope"
    assert plane.service.links == []
    assert [(line.event, line.decision.effect) for line in plane.audit.lines] == [
        ("open", "allow"),
        ("call", "deny"),
    ]


@in_memory
async def test_a_grants_use_is_not_spent_on_a_service_without_room():
    plane = DataPlane(limits=ProxyLimits(max_upstream_connections=1))
    callers = [plane.caller() for _ in range(3)]
    callers[0].feed(GET)
    callers[1].feed(GET)
    await turn()
    assert plane.pool.is_exhausted
    plane.judge.verdict = GRANTED
    callers[2].feed(GET)
    plane.audit.settle()
    assert reason_of(callers[2].take()) == "overloaded"
    assert plane.grants.uses == []


@in_memory
async def test_a_call_for_which_there_is_no_room_is_a_refusal():
    plane = DataPlane(limits=ProxyLimits(max_upstream_connections=1))
    callers = [plane.caller() for _ in range(3)]
    for caller in callers:
        caller.feed(GET)
    await turn()
    plane.audit.settle()
    told = callers[2].take()
    assert told.startswith(b"HTTP/1.1 503 ")
    assert reason_of(told) == "overloaded"
    assert not callers[2].is_closed
    assert (plane.line().decision.effect, plane.line().decision.reason) == ("deny", "overloaded")
    assert plane.struck("upstream_connections") == 1
    plane.service.link.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
    plane.advance(15.25)
    plane.audit.settle()
    assert reason_of(callers[1].take()) == "overloaded"
    assert plane.inbound.open_calls == 1


@in_memory
async def test_a_call_that_has_gone_on_once_is_no_refusal_when_there_is_no_room_to_try_again():
    plane = DataPlane(limits=ProxyLimits(upstream_response_timeout_s=5))
    caller = await plane.warm_caller()
    caller.feed(GET)
    plane.service.gate = asyncio.Event()
    plane.service.link.lose(None)
    plane.advance(5.25)
    assert reason_of(caller.take()) == "overloaded"
    assert (plane.line().decision.effect, plane.line().outcome.status) == ("allow", 503)
    plane.service.gate.set()


@in_memory
async def test_who_leaves_while_waiting_for_the_service_is_not_connected():
    plane = DataPlane(limits=ProxyLimits(max_upstream_connections=1))
    first, second = plane.caller(), plane.caller()
    first.feed(GET)
    second.feed(GET)
    await turn()
    second.lose()
    assert plane.line().outcome.upstream == "none"
    plane.service.link.take()
    plane.service.link.feed(OK)
    assert plane.service.link.take() == b""
    assert plane.pool.idle_count == 1


@in_memory
async def test_connections_that_die_before_anything_was_sent_are_not_replaced_for_ever():
    plane = DataPlane()
    caller = await plane.warm_caller()
    caller.feed(PUT_5)
    plane.service.link.lose(None)
    await turn()
    plane.service.link.lose(None)
    await turn()
    assert len(plane.service.links) == 2
    assert reason_of(caller.take()) == "upstream-invalid"


@in_memory
async def test_rel32_a_failing_upstream_is_not_buried_under_retries():
    plane = DataPlane()
    caller = await plane.warm_caller()
    while plane.pool.may_retry():
        plane.pool._retried += 1
    caller.feed(GET)
    plane.service.link.lose(None)
    await turn()
    assert len(plane.service.links) == 1
    assert reason_of(caller.take()) == "upstream-invalid"


@in_memory
async def test_a_caller_who_does_not_read_gets_no_further_answer_read_for_it():
    plane = DataPlane()
    caller = await plane.warm_caller()
    service = plane.service.link
    caller.is_stuck = True
    caller.feed(GET)
    service.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n" + b"x" * 70000)
    assert plane.pool.idle_count == 1
    caller.feed(GET)
    assert service.is_paused
    caller.flush()
    assert not service.is_paused


@in_memory
async def test_a35_without_an_upstream_the_body_is_never_asked_for():
    plane = DataPlane()
    plane.service.error = ConnectionRefusedError()
    caller = plane.caller()
    caller.feed(PUT_5.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    await turn()
    told = caller.take()
    assert told.startswith(b"HTTP/1.1 503 ")
    assert caller.is_closed


@in_memory
async def test_a_call_on_open_connections_makes_no_task_no_future_and_no_timer(
    monkeypatch: pytest.MonkeyPatch,
):
    plane = DataPlane()
    caller = await plane.warm_caller()
    loop = asyncio.get_running_loop()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("not on the hot path")

    with monkeypatch.context() as patch:
        for name in ("create_task", "create_future", "call_soon", "call_later", "call_at"):
            patch.setattr(loop, name, refuse)
        for _ in range(3):
            caller.feed(GET)
            plane.service.link.feed(OK)
    assert caller.take().count(b"HTTP/1.1 200 ") == 3
    assert len(plane.audit.lines) == 3
