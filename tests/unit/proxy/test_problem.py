"""Problem documents: their members, their headers, and that nothing is missing for any reason."""

from __future__ import annotations

import h11
import msgspec
import pytest

from sidecar.authz.reasons import Reason
from sidecar.proxy.head import METHODS
from sidecar.proxy.problem import TITLES, render_problem

ID = "01JD0000000000000000000000"


def read(raw: bytes, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) as a client reads them."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(raw)
    response = connection.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        body += bytes(event.data)
    assert connection.trailing_data == (b"", False)
    headers = {name.decode(): value.decode() for name, value in response.headers}
    assert len(headers) == len(list(response.headers))
    return response.status_code, headers, body


def test_a_refusal() -> None:
    raw, size = render_problem(403, Reason.SCOPE, "no scope permits DELETE here", ID, close=False)
    status, headers, body = read(raw)
    assert status == 403 and len(body) == size
    assert headers == {
        "content-type": "application/problem+json",
        "content-length": str(size),
        "cache-control": "no-store",
        "sidecar-reason": "scope",
        "x-request-id": ID,
    }
    assert msgspec.json.decode(body) == {
        "type": "urn:sidecar:problem:scope",
        "title": "No scope of the caller permits this call",
        "status": 403,
        "reason": "scope",
        "request_id": ID,
        "detail": "no scope permits DELETE here",
    }
    assert raw.startswith(b"HTTP/1.1 403 Forbidden\r\n")


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_title_and_an_answer(reason: Reason) -> None:
    status, headers, body = read(render_problem(403, reason, "x", ID, close=True)[0])
    document = msgspec.json.decode(body)
    assert headers["sidecar-reason"] == document["reason"] == reason.value
    assert document["type"] == f"urn:sidecar:problem:{reason.value}" and document["title"]
    assert status == 403 and headers["connection"] == "close"


def test_no_two_reasons_share_a_title() -> None:
    assert len(set(TITLES.values())) == len(TITLES) == len(Reason)


def test_f15_the_answer_to_head_has_no_body() -> None:
    whole, size = render_problem(403, Reason.SCOPE, "x", ID, close=False)
    head, none = render_problem(403, Reason.SCOPE, "x", ID, close=False, head_only=True)
    assert none == 0 and whole[:-size] == head
    assert read(head, "HEAD")[1]["content-length"] == str(size)


@pytest.mark.parametrize(("seconds", "text"), [(7, "7"), (0, "1"), (1, "1")])
def test_retry_after(seconds: int, text: str) -> None:
    raw, _ = render_problem(429, Reason.RATE, "x", ID, close=False, retry_after_s=seconds)
    assert read(raw)[1]["retry-after"] == text
    assert raw.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")


def test_a_405_says_what_is_allowed() -> None:
    allowed = read(render_problem(405, Reason.METHOD, "x", ID, close=True)[0])[1]["allow"].split(", ")
    assert allowed == list(METHODS.values()) and not {"CONNECT", "TRACE"} & set(allowed)
    assert read(render_problem(405, Reason.METHOD, "x", ID, close=True, allow="GET")[0])[1]["allow"] == "GET"
    assert "allow" not in read(render_problem(403, Reason.SCOPE, "x", ID, close=True)[0])[1]


@pytest.mark.parametrize("detail", ['quote " backslash \\', "line\r\nX: y", "é\u2028", "\x00"])
def test_a_detail_cannot_break_out_of_its_member(detail: str) -> None:
    _, headers, body = read(render_problem(400, Reason.MALFORMED, detail, ID, close=True)[0])
    assert msgspec.json.decode(body)["detail"] == detail and "x" not in headers


@pytest.mark.parametrize(
    "status", [400, 403, 405, 408, 413, 414, 417, 421, 429, 431, 500, 501, 502, 503, 504, 505]
)
def test_every_status_of_ours_has_its_phrase(status: int) -> None:
    raw = render_problem(status, Reason.INTERNAL, "x", ID, close=True)[0]
    assert not raw.startswith(b"HTTP/1.1 %d \r\n" % status) and read(raw)[0] == status
