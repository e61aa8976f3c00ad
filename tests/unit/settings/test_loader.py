from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sidecar.errors import ConfigurationError, SettingsError
from sidecar.settings import (
    VARIABLES,
    HostPort,
    Settings,
    Upstream,
    describe_settings,
    find_admin_socket,
    load_settings,
)

FILES = {
    "SIDECAR_IDENTITY": "files",
    "SIDECAR_SVID_FILE": "/svid/svid.pem",
    "SIDECAR_SVID_KEY_FILE": "/svid/svid_key.pem",
    "SIDECAR_BUNDLE_FILE": "/svid/bundle.pem",
    "SIDECAR_POLICY": "/etc/policy.yaml",
}
EMBEDDED = {
    "SIDECAR_IDENTITY": "embedded",
    "SIDECAR_SPIFFE_ID": "spiffe://demo.test/orders",
    "SIDECAR_POLICY": "/etc/policy.yaml",
}


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as refusal:
        load_settings(environ)
    return list(refusal.value.problems)


def problem(**changes: str | None) -> str:
    """The one problem of an environment that is otherwise in order; names come without their prefix."""
    environ = dict(FILES)
    for name, value in changes.items():
        environ.pop(f"SIDECAR_{name}", None)
        if value is not None:
            environ[f"SIDECAR_{name}"] = value
    (only,) = problems(environ)
    return only


def test_four_wrong_settings_give_four_problems_in_one_run():
    found = problems(
        FILES
        | {
            "SIDECAR_LISTEN": "everywhere",
            "SIDECAR_DRAIN_DELAY": "5",
            "SIDECAR_UNSAFE_UPSTREAM": "yes",
            "SIDECAR_POLCY": "/etc/policy.yaml",
        }
    )
    assert [text.split(":")[0] for text in found] == [
        "SIDECAR_POLCY", "SIDECAR_LISTEN", "SIDECAR_UNSAFE_UPSTREAM", "SIDECAR_DRAIN_DELAY",
    ]  # fmt: skip
    assert all(text.isprintable() and not text.endswith(".") for text in found)


def test_the_error_exits_two():
    assert SettingsError.exit_code == 2


def test_nothing_set_names_what_is_required():
    assert problems({}) == [
        "SIDECAR_POLICY: required: the policy file",
        "SIDECAR_IDENTITY: 'workload-api' is not built yet; set it to files or embedded",
    ]


@pytest.mark.parametrize("missing", ["SVID_FILE", "SVID_KEY_FILE", "BUNDLE_FILE"])
def test_files_needs_its_three_files(missing):
    assert problem(**{missing: None}) == f"SIDECAR_{missing}: required with SIDECAR_IDENTITY=files"
    assert problem(**{missing: ""}) == f"SIDECAR_{missing}: required with SIDECAR_IDENTITY=files"


def test_embedded_needs_the_own_id():
    (only,) = problems({name: value for name, value in EMBEDDED.items() if name != "SIDECAR_SPIFFE_ID"})
    assert only == "SIDECAR_SPIFFE_ID: required with SIDECAR_IDENTITY=embedded"


def test_a_bad_own_id_is_one_problem_not_two():
    (only,) = problems(EMBEDDED | {"SIDECAR_SPIFFE_ID": "spiffe://Demo.test/"})
    assert only.startswith("SIDECAR_SPIFFE_ID: ")


def test_workload_api_stops_with_a_way_on():
    assert "not built yet" in problem(IDENTITY="workload-api")


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:80", "http://0.0.0.0:80", "http://orders:80", "http://[2001:db8::1]:80"]
)
def test_upstream_elsewhere_needs_the_unsafe_switch(url):
    text = problem(UPSTREAM=url)
    assert "SIDECAR_UNSAFE_UPSTREAM=true" in text
    assert problem(UPSTREAM=url, UNSAFE_UPSTREAM="false") == text
    assert load_settings(FILES | {"SIDECAR_UPSTREAM": url, "SIDECAR_UNSAFE_UPSTREAM": "true"}).unsafe_upstream


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ORDERS_DIR", "/orders"),
        ("OUTBOUND", "127.0.0.1:15001"),
        ("OUTBOUND_UIDS", "1000"),
        ("DESTINATIONS", "/etc/destinations.yaml"),
        ("BREAK_GLASS_OBSERVE_MAX_TTL", "72h"),
    ],
)
def test_what_is_not_built_yet_stops_the_start(name, value):
    assert problem(**{name: value}) == f"SIDECAR_{name}: not built yet; unset it"


@pytest.mark.parametrize("name", ["OUTBOUND", "BREAK_GLASS_OBSERVE_MAX_TTL"])
def test_what_is_not_built_yet_may_be_said_to_be_off(name):
    load_settings(FILES | {f"SIDECAR_{name}": "off"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "2"), ("WORKERS", "0"), ("WORKERS", "auto"),
        ("BREAK_GLASS_MAX_TTL", "241m"), ("BREAK_GLASS_MAX_TTL", "5h"), ("BREAK_GLASS_MAX_TTL", "off"),
        ("BREAK_GLASS_MAX_TTL", "0s"), ("BREAK_GLASS_APPROVALS", "0"), ("HANDSHAKE_TIMEOUT", "off"),
        ("MAX_CONNECTIONS", "0"), ("MAX_HEADER_BYTES", "off"), ("IDLE_TIMEOUT", "10"),
        ("MAX_BODY_BYTES", "0B"),
        ("ADMIN", "127.0.0.1:9901"), ("AUDIT", "none"), ("AUDIT", "off"), ("STATUS", "off"), ("POLICY", None),
        ("LOG_LEVEL", "INFO"), ("IDENTITY", "none"), ("ADMIN_GROUP", "wheel"),
        ("ADMIN_GROUP", "4294967295"),
    ],
)  # fmt: skip
def test_a_value_that_would_open_or_guess_is_refused(name, value):
    assert problem(**{name: value}).startswith(f"SIDECAR_{name}: ")


@pytest.mark.parametrize(("value", "seconds"), [("4h", 14400), ("240m", 14400), ("1s", 1), ("", 3600)])
def test_grant_ceiling_at_its_bounds(value, seconds):
    assert load_settings(FILES | {"SIDECAR_BREAK_GLASS_MAX_TTL": value}).break_glass_max_ttl_s == seconds


def test_a_state_directory_that_does_not_parse_is_reported_once():
    assert problem(STATE_DIR=" /state").startswith("SIDECAR_STATE_DIR: ")


def test_own_ports_must_differ():
    assert "call itself" in problem(LISTEN="0.0.0.0:8080", UPSTREAM="http://127.0.0.1:8080")
    assert "give each its own" in problem(STATUS="127.0.0.1:8443")
    load_settings(FILES | {"SIDECAR_LISTEN": "127.0.0.1:0", "SIDECAR_STATUS": "127.0.0.1:0"})


UNKNOWN = [
    ("SIDECAR_LISTN", "did you mean SIDECAR_LISTEN?"),
    ("SIDECAR_BREAKGLASS_SIGNERS", "did you mean SIDECAR_BREAK_GLASS_SIGNERS?"),
    ("SIDECAR_POLICY_FILE", "did you mean SIDECAR_"),
    ("SIDECAR_", "sidecar config env"),
    ("SIDECAR_SERVICE_HOSTS", ""),
    ("SIDECAR_WEB_SERVICE_HOST", "enableServiceLinks"),
    ("SIDECAR_WEB_PORT_80_TCP_ADDR", "enableServiceLinks"),
    ("SIDECAR_\x1b[2J", ""),
]


@pytest.mark.parametrize(("name", "hint"), UNKNOWN)
def test_an_unknown_name_is_a_problem_and_its_value_is_not_shown(name, hint):
    (only,) = problems(FILES | {name: "canary-7f3a"})
    assert hint in only and "canary" not in only and only.isprintable()


SERVICE_LINKS = [
    "SIDECAR_SERVICE_HOST", "SIDECAR_SERVICE_PORT", "SIDECAR_SERVICE_PORT_HTTPS", "SIDECAR_PORT",
    "SIDECAR_PORT_8443_TCP", "SIDECAR_PORT_8443_TCP_ADDR",
]  # fmt: skip


def test_service_links_are_ignored_and_said_so():
    links = dict.fromkeys(SERVICE_LINKS, "tcp://10.0.0.1:8443")
    assert load_settings(FILES | links).ignored == tuple(sorted(SERVICE_LINKS))


def test_proxy_variables_are_ignored_and_said_so():
    settings = load_settings(
        FILES | {"HTTP_PROXY": "http://u:p@x", "no_proxy": "", "https_proxy": "x", "PATH": "/bin"}
    )
    assert settings.ignored == ("HTTP_PROXY", "https_proxy")


def test_empty_means_unset():
    environ = (
        FILES
        | {variable.name: "" for variable in VARIABLES if variable.name not in FILES}
        | {"SIDECAR_X": ""}
    )
    assert load_settings(environ) == load_settings(FILES)


def test_defaults():
    settings = load_settings(FILES)
    assert settings.listen == HostPort("0.0.0.0", 8443)
    assert settings.upstream == Upstream("http", "127.0.0.1", 8080)
    assert settings.status == HostPort("127.0.0.1", 9902)
    assert settings.state_dir == Path("/var/lib/sidecar")
    assert settings.issuer_dir == Path("/var/lib/sidecar/issuer")
    assert settings.admin == Path("/var/lib/sidecar/admin.sock")
    assert (settings.audit_dir, settings.audit_sinks) == (Path("/var/lib/sidecar/audit"), ())
    assert settings.max_body_bytes is None and settings.spiffe_id is None and settings.admin_group is None
    assert (settings.drain_delay_s, settings.drain_deadline_s, settings.workers) == (5, 20, 1)
    assert (settings.max_request_line_bytes, settings.max_header_bytes) == (8192, 32768)


def test_what_hangs_on_the_state_directory_moves_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(FILES | {"SIDECAR_STATE_DIR": "state", "SIDECAR_AUDIT": "file,stdout"})
    assert settings.state_dir == tmp_path / "state"
    assert settings.admin == tmp_path / "state" / "admin.sock"
    assert (settings.audit_dir, settings.audit_sinks) == (tmp_path / "state" / "audit", ("stdout",))
    elsewhere = load_settings(
        FILES | {"SIDECAR_ISSUER_DIR": "/i", "SIDECAR_ADMIN": "unix:/a.sock", "SIDECAR_AUDIT": "file:/logs"}
    )
    assert (elsewhere.issuer_dir, elsewhere.admin, elsewhere.audit_dir) == (
        Path("/i"),
        Path("/a.sock"),
        Path("/logs"),
    )


def test_embedded():
    settings = load_settings(EMBEDDED)
    assert str(settings.spiffe_id) == "spiffe://demo.test/orders"


def test_every_built_variable_is_an_attribute_and_the_other_way_round():
    attributes = {variable.attribute for variable in VARIABLES} - {None, "audit"}
    fields = {field.name for field in dataclasses.fields(Settings)} - {"audit_dir", "audit_sinks", "ignored"}
    assert attributes == fields


def test_describe_tells_where_a_value_comes_from():
    described = {
        entry.name: entry
        for entry in describe_settings(FILES | {"SIDECAR_STATE_DIR": "/s", "SIDECAR_LISTEN": ""})
    }
    assert (described["SIDECAR_IDENTITY"].value, described["SIDECAR_IDENTITY"].origin) == (
        "files",
        "environment",
    )
    assert (described["SIDECAR_ADMIN"].value, described["SIDECAR_ADMIN"].origin) == (
        "unix:/s/admin.sock",
        "default",
    )
    assert (described["SIDECAR_LISTEN"].value, described["SIDECAR_LISTEN"].origin) == (
        "0.0.0.0:8443",
        "default",
    )
    assert described["SIDECAR_SPIFFE_ID"].value is None
    assert list(described) == [variable.name for variable in VARIABLES]


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({}, "/var/lib/sidecar/admin.sock"),
        ({"SIDECAR_STATE_DIR": "/s"}, "/s/admin.sock"),
        ({"SIDECAR_STATE_DIR": "/s", "SIDECAR_ADMIN": "unix:/a"}, "/a"),
        (
            {"SIDECAR_LISTEN": "nonsense", "SIDECAR_NONSENSE": "x", "SIDECAR_ADMIN": ""},
            "/var/lib/sidecar/admin.sock",
        ),
    ],
)
def test_commands_find_the_socket_from_two_variables_only(environ, path):
    assert find_admin_socket(environ) == Path(path)


@pytest.mark.parametrize(("name", "value"), [("SIDECAR_ADMIN", "/a"), ("SIDECAR_STATE_DIR", "/a\n")])
def test_a_socket_that_cannot_be_found_names_the_variable(name, value):
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        find_admin_socket({name: value})
