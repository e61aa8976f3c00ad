"""The table of every environment variable: name, default, kind and meaning, one entry each.

The reader's table in ``docs/configuration.md`` and ``sidecar config env`` are made from it, and
:class:`~sidecar.settings.loader.Settings` has one attribute per entry that is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sidecar.identity.spiffe_id import parse_spiffe_id
from sidecar.settings.values import (
    Kind,
    choice,
    count,
    duration,
    parse_audit,
    parse_bool,
    parse_host_port,
    parse_path,
    parse_socket,
    parse_upstream,
    size,
)

PREFIX = "SIDECAR_"
DEFAULT_STATE_DIR = "/var/lib/sidecar"
STATE_DIR = "<SIDECAR_STATE_DIR>"  # stands in a default for the state directory's value
AUDIT_SINKS = ("stdout",)
SIGNERS_MAX = 8


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable.

    ``default`` is the text that counts when it is unset; None means "no value". ``attribute`` is its name in
    ``Settings`` and carries the unit, None where one variable is not built yet: setting that is an error.
    """

    name: str
    attribute: str | None
    kind: Kind
    default: str | None
    help: str
    required: bool = False


_PATH = Kind("path", parse_path)
_FLAG = Kind("`true` or `false`", parse_bool)
_ADDRESS = Kind("address:port", parse_host_port)
_AUDIT = Kind("comma-separated names", partial(parse_audit, sinks=AUDIT_SINKS))
_LATER = Kind("not built yet", str)

# fmt: off
VARIABLES: tuple[Variable, ...] = (
    Variable("SIDECAR_LISTEN", "listen", _ADDRESS, "0.0.0.0:8443", "inbound mTLS listener"),
    Variable(
        "SIDECAR_UPSTREAM", "upstream", Kind("URL", parse_upstream), "http://127.0.0.1:8080",
        "local service: `http://host:port` or `unix:/path` (HTTP/1.1 over a Unix socket); "
        "`h2c://` and `tcp://` are not built yet. Loopback or Unix socket",
    ),
    Variable(
        "SIDECAR_UNSAFE_UPSTREAM", "unsafe_upstream", _FLAG, "false",
        "allow an upstream that is neither loopback nor a Unix socket; calls to it are not encrypted",
    ),
    Variable(
        "SIDECAR_IDENTITY", "identity", choice("workload-api", "files", "embedded"), "workload-api",
        "where the SVID comes from; `workload-api` is not built yet",
    ),
    Variable(
        "SIDECAR_SPIFFE_ID", "spiffe_id", Kind("SPIFFE ID", parse_spiffe_id), None,
        "the own id. Required for `embedded`; with `files` the SVID must carry exactly this id",
    ),
    Variable("SIDECAR_SVID_FILE", "svid_file", _PATH, None, "PEM chain, leaf first; required for `files`"),
    Variable(
        "SIDECAR_SVID_KEY_FILE", "svid_key_file", _PATH, None,
        "PKCS#8 key of the SVID in PEM, readable by its owner only; required for `files`",
    ),
    Variable(
        "SIDECAR_BUNDLE_FILE", "bundle_file", _PATH, None,
        "PEM (own trust domain), SPIFFE bundle JSON, or SPIFFE bundle map JSON; required for `files`",
    ),
    Variable(
        "SIDECAR_ISSUER_DIR", "issuer_dir", _PATH, f"{STATE_DIR}/issuer",
        "`embedded`: where the authority lives; sidecars on one machine share one",
    ),
    Variable("SIDECAR_POLICY", "policy", _PATH, None, "the policy file", required=True),
    Variable(
        "SIDECAR_STATE_DIR", "state_dir", _PATH, DEFAULT_STATE_DIR,
        "grants and audit log; created 0700, refused when others may write to it",
    ),
    Variable(
        "SIDECAR_AUDIT", "audit", _AUDIT, "file",
        "where the chained file is: `file` (under the state directory) or `file:/dir`; it is always written. "
        "Further names (`stdout`) are copies behind it",
    ),
    Variable(
        "SIDECAR_ADMIN", "admin", Kind("`unix:/path`", parse_socket), f"unix:{STATE_DIR}/admin.sock",
        "operator API, Unix socket only",
    ),
    Variable(
        "SIDECAR_ADMIN_GROUP", "admin_group", count(0, 4_294_967_294, "number"), None,
        "gid that may connect too (socket 0660 instead of 0600)",
    ),
    Variable(
        "SIDECAR_STATUS", "status", _ADDRESS, "127.0.0.1:9902",
        "`/livez`, `/readyz`, `/metrics`; nothing secret (`0.0.0.0:9902` for kubelet probes)",
    ),
    Variable(
        "SIDECAR_BREAK_GLASS_SIGNERS", "break_glass_signers", _PATH, None,
        "the signers file; unset: every grant is refused",
    ),
    Variable(
        "SIDECAR_BREAK_GLASS_MAX_TTL", "break_glass_max_ttl_s", duration("1s", "4h"), "1h",
        "longest accepted grant",
    ),
    Variable(
        "SIDECAR_BREAK_GLASS_APPROVALS", "break_glass_approvals", count(1, SIGNERS_MAX), "1",
        "distinct signers a grant needs, the one who makes it included",
    ),
    Variable("SIDECAR_BREAK_GLASS_OBSERVE_MAX_TTL", None, _LATER, "off", "longest accepted observe grant"),
    Variable("SIDECAR_ORDERS_DIR", None, _LATER, None, "directory watched for signed orders"),
    Variable("SIDECAR_OUTBOUND", None, _LATER, "off", "plaintext listener for the local application"),
    Variable("SIDECAR_OUTBOUND_UIDS", None, _LATER, None, "users who may connect to the outbound socket"),
    Variable("SIDECAR_DESTINATIONS", None, _LATER, None, "destinations of the outbound listener"),
    Variable(
        "SIDECAR_WORKERS", "workers", count(1, 1), "1",
        "data-plane processes; several are not built yet, so a value other than 1 is an error",
    ),
    Variable(
        "SIDECAR_DRAIN_DELAY", "drain_delay_s", duration("0s", "10m"), "5s",
        "after SIGTERM readiness fails and accepting goes on for this long",
    ),
    Variable(
        "SIDECAR_DRAIN_DEADLINE", "drain_deadline_s", duration("0s", "1h"), "20s",
        "after that, open calls have this long before they are cut",
    ),
    Variable(
        "SIDECAR_LOG_LEVEL", "log_level", choice("debug", "info", "warning", "error"), "info",
        "least severity of the service log, which goes to stderr",
    ),
    Variable(
        "SIDECAR_LOG_FORMAT", "log_format", choice("text", "json"), None,
        "unset: `text` on a terminal, else `json`",
    ),
    # Limits. Each can be raised within its bounds; none but the body's can be taken away.
    Variable(
        "SIDECAR_HANDSHAKE_TIMEOUT", "handshake_timeout_s", duration("100ms", "1m"), "10s",
        "from accepting a connection to a finished TLS handshake; then it is closed",
    ),
    Variable(
        "SIDECAR_MAX_HANDSHAKES", "max_handshakes", count(1, 10_000), "256",
        "handshakes at once; later connections wait in the backlog, and those that dawdle are given up for them",
    ),
    Variable(
        "SIDECAR_MAX_CONNECTIONS", "max_connections", count(1, 100_000), "10000",
        "open inbound connections; one more is accepted and closed at once",
    ),
    Variable(
        "SIDECAR_MAX_CONNECTION_AGE", "max_connection_age_s", duration("1s", "24h"), "1h",
        "age at which an inbound connection takes no new call; one that is open may end. A certificate that ends "
        "earlier ends the connection with all that is open on it",
    ),
    Variable(
        "SIDECAR_MAX_REQUEST_LINE_BYTES", "max_request_line_bytes", size("256B", "64KiB"), "8KiB",
        "request line; beyond it 414",
    ),
    Variable(
        "SIDECAR_MAX_HEADER_BYTES", "max_header_bytes", size("1KiB", "1MiB"), "32KiB",
        "header block, 32 bytes added per field; beyond it 431",
    ),
    Variable(
        "SIDECAR_MAX_HEADER_FIELDS", "max_header_fields", count(1, 1000), "100",
        "header fields; beyond it 431",
    ),
    Variable(
        "SIDECAR_MAX_BODY_BYTES", "max_body_bytes", size("1B", "1024GiB", off=True), "off",
        "request body, checked while it streams; beyond it 413",
    ),
    Variable(
        "SIDECAR_HEAD_TIMEOUT", "head_timeout_s", duration("100ms", "5m"), "10s",
        "from the first byte of a request head to its last; then 408",
    ),
    Variable(
        "SIDECAR_IDLE_TIMEOUT", "idle_timeout_s", duration("1s", "1h"), "300s",
        "between calls of one connection; then it is closed",
    ),
    Variable(
        "SIDECAR_STREAM_IDLE_TIMEOUT", "stream_idle_timeout_s", duration("100ms", "1h"), "300s",
        "between two bytes of an open call, either direction; then it is cut",
    ),
    Variable(
        "SIDECAR_REQUEST_TIMEOUT", "request_timeout_s", duration("100ms", "24h"), "300s",
        "from a complete request head to a complete answer; a rule with `streaming: true` lifts it",
    ),
    Variable(
        "SIDECAR_WRITE_TIMEOUT", "write_timeout_s", duration("100ms", "1h"), "30s",
        "while the caller does not read; then the connection is reset",
    ),
    Variable(
        "SIDECAR_UPSTREAM_CONNECT_TIMEOUT", "upstream_connect_timeout_s", duration("10ms", "1m"), "1s",
        "connecting to the upstream; then 503",
    ),
    Variable(
        "SIDECAR_UPSTREAM_RESPONSE_TIMEOUT", "upstream_response_timeout_s", duration("10ms", "1h"), "15s",
        "from a complete request to the head of the answer; then 504",
    ),
    Variable(
        "SIDECAR_UPSTREAM_IDLE_TIMEOUT", "upstream_idle_timeout_s", duration("1s", "1h"), "60s",
        "life of an unused pooled connection to the upstream",
    ),
    Variable(
        "SIDECAR_MAX_UPSTREAM_CONNECTIONS", "max_upstream_connections", count(1, 10_000), "512",
        "connections to the upstream at once",
    ),
    Variable(
        "SIDECAR_MAX_RESPONSE_HEAD_BYTES", "max_response_head_bytes", size("1KiB", "1MiB"), "64KiB",
        "head of the upstream's answer; beyond it 502",
    ),
)
# fmt: on


def expand_default(variable: Variable, state_dir: Path | str) -> str | None:
    """The default's text with the state directory put in."""
    return None if variable.default is None else variable.default.replace(STATE_DIR, str(state_dir))


def render_environment_table() -> str:
    """The reader's table, Markdown, one row per variable in the table's order; ends with a newline."""
    lines = ["| variable | value | default | meaning |", "|---|---|---|---|"]
    for variable in VARIABLES:
        default = "required" if variable.required else f"`{variable.default}`" if variable.default else ""
        lines.append(f"| `{variable.name}` | {variable.kind.word} | {default} | {variable.help} |")
    return "\n".join(lines) + "\n"
