from __future__ import annotations

import pytest

from sidecar.errors import ConfigurationError
from sidecar.review.question import build_question, parse_question

WEB = "spiffe://demo.test/web"
GOOD = b'{"as": "spiffe://demo.test/web", "method": "GET", "path": "/x?y"}'


@pytest.mark.parametrize("purpose", [None, "buy"])
def test_what_is_written_is_read(purpose):
    question = build_question(WEB, "GET", "/x?y=1", purpose)
    assert parse_question(question.as_json()) == question


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        GOOD.replace(b'"as"', b'"who"'),
        GOOD.replace(b'"GET"', b"7"),
        GOOD.replace(b'"GET"', b'"get"'),
        GOOD.replace(b'"GET"', b'"GET /"'),
        GOOD.replace(b'"GET"', b'""'),
        GOOD.replace(b'"/x?y"', b"null"),
        GOOD.replace(b'"/x?y"', b'"/\xc3\xa4"'),
        GOOD.replace(b"spiffe://demo.test/web", b"spiffe://demo.test"),
        GOOD.replace(b"}", b', "more": 1}'),
        GOOD.replace(b"}", b', "purpose": 1}'),
        GOOD.replace(b"}", b', "method": "PUT"}'),
    ],
)
def test_what_is_no_question(data):
    with pytest.raises(ConfigurationError) as refusal:
        parse_question(data)
    assert str(refusal.value).isprintable()


def test_no_purpose_may_be_said():
    assert parse_question(GOOD.replace(b"}", b', "purpose": null}')).purpose is None
