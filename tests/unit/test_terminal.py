from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.terminal import escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünï", "plain ünï"),
        ("a\nb\r\t", "a\\nb\\r\\t"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x7f\x85\u2028\u202e\udc80", "\\x7f\\x85\\u2028\\u202e\\udc80"),
        ("", ""),
    ],
)
def test_what_is_shown(text, shown):
    assert escape(text) == shown


@given(st.text())
def test_nothing_but_printable_characters_comes_out(text):
    assert escape(text).isprintable()
