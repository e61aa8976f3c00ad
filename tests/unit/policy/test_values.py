from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from sidecar.errors import ConfigurationError
from sidecar.policy.model import Rate
from sidecar.policy.values import (
    METHODS,
    choice,
    parse_date,
    parse_end,
    parse_flag,
    parse_id,
    parse_line,
    parse_method,
    parse_name,
    parse_rate,
    parse_url,
)
from sidecar.proxy.head import METHODS as SERVED


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()


ACCEPTED = [
    (parse_name, "orders:read", "orders:read"),
    (parse_name, "a", "a"),
    (parse_name, "a" * 128, "a" * 128),
    (parse_line, "#shop-oncall", "#shop-oncall"),
    (parse_line, "Ürün ekibi", "Ürün ekibi"),
    (parse_url, "https://wiki.example/orders?x#y", "https://wiki.example/orders?x#y"),
    (parse_flag, "true", True),
    (parse_flag, "false", False),
    (parse_method, "GET", "GET"),
    (parse_method, "*", "*"),
    (parse_rate, "1/s", Rate(1, 1.0)),
    (parse_rate, "100/m", Rate(100, 60.0)),
    (parse_rate, "1000000/h", Rate(1_000_000, 3600.0)),
    (parse_date, "2027-06-30", date(2027, 6, 30)),
    (parse_end, "2027-12-31", at(2028, 1, 1)),
    (parse_end, "2028-02-29", at(2028, 3, 1)),
    (parse_end, "2027-12-31T10:00:00Z", at(2027, 12, 31, 10)),
    (parse_end, "2027-12-31T10:00:00.5Z", at(2027, 12, 31, 10) + 0.5),
    (parse_end, "2027-12-31T10:00:00+02:00", at(2027, 12, 31, 8)),
    (parse_end, "2027-12-31T23:00:00-02:00", at(2028, 1, 1, 1)),
]


@pytest.mark.parametrize(("parse", "text", "value"), ACCEPTED)
def test_what_a_text_means(parse, text, value):
    assert parse(text) == value


REFUSED = [
    (parse_name, ["", " a", "a ", "a\n", "-a", "a-", ":", "a b", "ä", "a,b", "a" * 129, "a\x00"]),
    (parse_line, ["", " a", "a ", "a\nb", "a\x1b[2J", "a" * 201, "\u202ea"]),
    (
        parse_url,
        ["", "wiki", "ftp://x", "https://", "https://a b", "https://ä", "javascript:x", "https://a\n"],
    ),
    (parse_flag, ["", "yes", "True", "1", "on", "true "]),
    (parse_method, ["", "get", "Get", "CONNECT", "TRACE", "FETCH", "GET ", "**", "PRI"]),
    (
        parse_id,
        ["", "web", "spiffe://a.test", "spiffe://a.test/", "SPIFFE://a.test/a", "spiffe://a.test/a\n"],
    ),
    (parse_rate, ["", "1", "0/s", "01/s", "-1/s", "1.5/s", "1/d", "1/ s", "1000001/s", "1/s\n", "١/s"]),
    (parse_rate, ["9" * 5000 + "/s"]),
    (
        parse_date,
        ["", "2027-13-01", "2027-02-30", "27-01-01", "2027-1-1", "2027-06-30T00:00:00Z", "20270630"],
    ),
    (parse_end, ["", "never", "2027-02-30", "2027-W01-1", "1830000000", "2027-12-31\n", "9999-12-31"]),
    (
        parse_end,
        ["2027-12-31T10:00:00", "2027-12-31 10:00:00Z", "2027-12-31T25:00:00Z", "2027-12-31T10:00:60Z"],
    ),
    (parse_end, ["2027-12-31T10:00:00+99:00", "9999-12-31T23:00:00-02:00", "0001-01-01T00:00:00+02:00"]),
    (choice("a", "b"), ["", "A", "c", "a "]),
]


@pytest.mark.parametrize(("parse", "text"), [(parse, text) for parse, texts in REFUSED for text in texts])
def test_what_is_refused(parse, text):
    with pytest.raises(ConfigurationError) as refusal:
        parse(text)
    message = str(refusal.value)
    assert message.isprintable() and not message.endswith(".")


def test_lower_case_methods_get_a_hint():
    with pytest.raises(ConfigurationError, match="write DELETE"):
        parse_method("delete")


def test_rules_may_name_exactly_what_is_served():
    assert set(SERVED.values()) == METHODS
