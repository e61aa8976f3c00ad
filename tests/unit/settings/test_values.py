from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.settings.values import (
    AuditPlaces,
    HostPort,
    Upstream,
    choice,
    count,
    duration,
    is_loopback,
    parse_audit,
    parse_bool,
    parse_host_port,
    parse_path,
    parse_socket,
    parse_upstream,
    size,
)

DURATION = duration("1ms", "4h").parse
SIZE = size("1B", "1MiB").parse


def audit(text: str) -> AuditPlaces:
    return parse_audit(text, ("stdout", "syslog"))


REFUSED = [
    (parse_bool, ["yes", "1", "on", "", "truE ", "true\n", "none"]),
    (parse_path, [" /a", "/a ", "/a\n", "/a\x00b", "/a\x1b[2J", "/\udc80"]),
    (
        parse_socket,
        ["/run/x", "unix:", "unix:x", "unix://run/x", "unix:/r/", "tcp:/x", "UNIX:/x", "unix:/x\n"],
    ),
    (
        parse_host_port,
        ["", ":8443", "8443", "0.0.0.0", "0.0.0.0:", "0.0.0.0:65536", "0.0.0.0:08443", "[::]:-1", "[::]:1 ",
         "::1:8443", "[::1]", "[::g]:1", "example.org:1", "[::]:1\n", "127.1:80", "1.2.3.4.5:80", "[::]:٣"],
    ),
    (
        parse_upstream,
        ["", "127.0.0.1:80", "http://127.0.0.1", "http://127.0.0.1:0", "http://127.0.0.1:80/",
         "http://127.0.0.1:80?a", "http://127.0.0.1:80#f", "http://a_b:80", "http://:80", "https://127.0.0.1:80",
         "HTTP://127.0.0.1:80", "http:127.0.0.1:80", "http://127.0.0.1:80\n", "h2c://127.0.0.1:80",
         "tcp://127.0.0.1:80", "unix:run/x", "unix://run/x", "http://-a:80", "http://[::1%25eth0]:80",
         "http://" + "a." * 127 + "aa:80"],
    ),
    (
        audit,
        ["files", "file:", "file:rel", "stdout:/x", "file,file", "file,file:/a", "stdout,stdout", "file,"],
    ),
    (
        DURATION,
        ["10", "0", "1", "-1s", "1.5s", "1 s", "s", "1h30m", "1d", "1S", "0s", "5h", "1s\n", "01s", "٣s",
         "off", "none", "9999999999s"],
    ),
    (SIZE, ["10", "0B", "1K", "1KB", "1kib", "1.5KiB", "-1B", "2MiB", "1B\n", "off", "٣B"]),
    (count(1, 10).parse, ["", "0", "11", "-1", "+1", "1.0", "0x1", "1_0", " 1", "1\n", "01", "٣"]),
    (choice("files", "embedded").parse, ["", "file", "Files", "files ", "files\n"]),
]  # fmt: skip


@pytest.mark.parametrize(("parse", "text"), [(parse, text) for parse, texts in REFUSED for text in texts])
def test_refused(parse, text):
    with pytest.raises(ConfigurationError) as refusal:
        parse(text)
    message = str(refusal.value)
    assert message.isprintable() and not message.endswith(".") and message[0] == message[0].lower()


def test_user_information_is_never_repeated():
    with pytest.raises(ConfigurationError) as refusal:
        parse_upstream("http://admin:hunter2@127.0.0.1:80")
    assert "hunter2" not in str(refusal.value) and "admin" not in str(refusal.value)


ACCEPTED = [
    (parse_bool, "true", True),
    (parse_bool, "TRUE", True),
    (parse_bool, "False", False),
    (parse_path, "/etc/my policy.yaml", Path("/etc/my policy.yaml")),
    (parse_path, "policy.yaml", Path("policy.yaml")),
    (parse_socket, "unix:/run/admin.sock", Path("/run/admin.sock")),
    (parse_host_port, "0.0.0.0:8443", HostPort("0.0.0.0", 8443)),
    (parse_host_port, "[::]:0", HostPort("::", 0)),
    (parse_host_port, "localhost:9902", HostPort("localhost", 9902)),
    (parse_upstream, "http://127.0.0.1:8080", Upstream("http", "127.0.0.1", 8080)),
    (parse_upstream, "http://[::1]:1", Upstream("http", "::1", 1)),
    (parse_upstream, "http://orders.shop.svc:65535", Upstream("http", "orders.shop.svc", 65535)),
    (parse_upstream, "unix:/run/app/app.sock", Upstream("unix", path="/run/app/app.sock")),
    (audit, "file", AuditPlaces(None, ())),
    (audit, "file:/var/log/x, stdout", AuditPlaces(Path("/var/log/x"), ("stdout",))),
    (audit, "stdout", AuditPlaces(None, ("stdout",))),
    (audit, "syslog,file,stdout", AuditPlaces(None, ("syslog", "stdout"))),
    (DURATION, "250ms", 0.25),
    (DURATION, "1ms", 0.001),
    (DURATION, "15m", 900.0),
    (DURATION, "4h", 14400.0),
    (duration("0s", "1m", off=True).parse, "0s", 0.0),
    (duration("0s", "1m", off=True).parse, "off", None),
    (duration("0s", "1m", off=True).parse, "none", None),
    (SIZE, "1B", 1),
    (SIZE, "8KiB", 8192),
    (SIZE, "1MiB", 1 << 20),
    (size("1B", "1GiB", off=True).parse, "off", None),
    (count(1, 10).parse, "10", 10),
    (choice("a", "b").parse, "b", "b"),
]


@pytest.mark.parametrize(("parse", "text", "value"), ACCEPTED)
def test_accepted(parse, text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("::ffff:10.0.0.1", False),
        ("LOCALHOST", False),
        ("localhost.evil.test", False), ("127.0.0.1.evil.test", False), ("", False),
    ],
)  # fmt: skip
def test_only_literal_loopback_is_local(host, local):
    assert is_loopback(host) is local


@given(st.ip_addresses(), st.integers(0, 65535))
def test_host_port_survives_its_own_text(address, port):
    value = HostPort(str(address), port)
    assert parse_host_port(str(value)) == value


@given(st.ip_addresses(), st.integers(1, 65535))
def test_upstream_survives_its_own_text(address, port):
    value = Upstream("http", str(address), port)
    assert parse_upstream(str(value)) == value


@given(st.text())
@pytest.mark.parametrize(
    "parse", [parse_bool, parse_path, parse_socket, parse_host_port, parse_upstream, audit, DURATION, SIZE]
)
def test_any_text_gives_a_value_or_one_printable_line(parse, text):
    try:
        parse(text)
    except ConfigurationError as exc:
        assert str(exc).isprintable()


def test_bounds_that_do_not_parse_fail_when_the_table_is_made():
    with pytest.raises(ValueError, match="bound"):
        duration("1", "4h")
