"""Settings: the environment as one frozen value, or every problem with it at once. Pure; reads no file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sidecar.errors import ConfigurationError, IdentityError, SettingsError
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.settings.values import HostPort, Upstream, parse_path, parse_socket
from sidecar.settings.variables import DEFAULT_STATE_DIR, PREFIX, VARIABLES, Variable, expand_default

BY_NAME = {variable.name: variable for variable in VARIABLES}
_SHORT_NAMES = [name.removeprefix(PREFIX) for name in BY_NAME]  # the shared prefix would make all names alike

# What Kubernetes puts into every container of a namespace that has a Service called "sidecar".
_SERVICE_LINK = re.compile(r"SIDECAR_(SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_.*)", re.DOTALL)
_OTHER_SERVICE_LINK = re.compile(
    r"SIDECAR_[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT|PORT_[0-9]+_(TCP|UDP|SCTP)).*", re.DOTALL
)
# Names that a reader might expect to matter: connections to upstream and peers never go through a proxy.
_PROXY_NAMES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, checked. Names carry units; None is off or unset; ``ignored`` is for one line of log."""

    listen: HostPort
    upstream: Upstream
    unsafe_upstream: bool
    identity: Literal["workload-api", "files", "embedded"]
    spiffe_id: SpiffeId | None
    svid_file: Path | None
    svid_key_file: Path | None
    bundle_file: Path | None
    issuer_dir: Path
    policy: Path
    state_dir: Path
    audit_dir: Path
    audit_sinks: tuple[str, ...]
    admin: Path
    admin_group: int | None
    status: HostPort
    break_glass_signers: Path | None
    break_glass_max_ttl_s: float
    break_glass_approvals: int
    workers: int
    drain_delay_s: float
    drain_deadline_s: float
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["text", "json"] | None
    handshake_timeout_s: float
    max_handshakes: int
    max_connections: int
    max_connection_age_s: float
    max_request_line_bytes: int
    max_header_bytes: int
    max_header_fields: int
    max_body_bytes: int | None
    head_timeout_s: float
    idle_timeout_s: float
    stream_idle_timeout_s: float
    request_timeout_s: float
    write_timeout_s: float
    upstream_connect_timeout_s: float
    upstream_response_timeout_s: float
    upstream_idle_timeout_s: float
    max_upstream_connections: int
    max_response_head_bytes: int
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Described:
    """One setting as ``sidecar config show`` prints it; ``value`` is text, None when there is none."""

    name: str
    value: str | None
    origin: Literal["default", "environment"]


def load_settings(environ: Mapping[str, str]) -> Settings:
    """The settings that ``environ`` describes. Raises :class:`SettingsError` with every problem there is.

    An empty value counts as unset. An unknown ``SIDECAR_*`` name is a problem, because a misspelt setting
    would otherwise leave a default in force that nobody chose.
    """
    problems = _unknown_names(environ)
    values: dict[str, Any] = {}
    state_dir = _state_dir(environ)
    for variable in VARIABLES:
        try:
            value = _value(variable, environ, state_dir)
        except (ConfigurationError, IdentityError) as exc:
            problems.append(f"{variable.name}: {exc}")
            continue
        if variable.attribute is not None:
            values[variable.attribute] = value
    if "state_dir" in values:
        values["state_dir"] = state_dir
    problems.extend(_disagreements(values))
    if problems:
        raise SettingsError(problems)
    audit = values.pop("audit")
    return Settings(
        audit_dir=audit.directory or values["state_dir"] / "audit",
        audit_sinks=audit.sinks,
        ignored=_ignored(environ),
        **values,
    )


def describe_settings(environ: Mapping[str, str]) -> list[Described]:
    """Every variable with the text that counts and where it comes from, checked or not; the table's order."""
    state_dir = _state_dir(environ)
    described = []
    for variable in VARIABLES:
        text = environ.get(variable.name)
        if text:
            described.append(Described(variable.name, text, "environment"))
        else:
            described.append(Described(variable.name, expand_default(variable, state_dir), "default"))
    return described


def warn_of(settings: Settings) -> list[str]:
    """One line per accepted setting that is dangerous; shown by ``config check`` and logged at each start."""
    warnings = []
    if settings.unsafe_upstream and not settings.upstream.is_local:
        warnings.append(
            f"SIDECAR_UNSAFE_UPSTREAM: calls to {settings.upstream} are not encrypted, and it can be reached "
            "around the sidecar unless the network forbids it"
        )
    return warnings


def find_admin_socket(environ: Mapping[str, str]) -> Path:
    """The running sidecar's admin socket, from ``SIDECAR_ADMIN`` or ``SIDECAR_STATE_DIR`` and nothing else.

    Raises :class:`ConfigurationError`. Commands that talk to a running sidecar must work from a shell that
    has none of its other settings.
    """
    name = "SIDECAR_ADMIN" if environ.get("SIDECAR_ADMIN") else "SIDECAR_STATE_DIR"
    try:
        if name == "SIDECAR_ADMIN":
            return parse_socket(environ[name])
        return parse_path(environ.get(name) or DEFAULT_STATE_DIR).absolute() / "admin.sock"
    except ConfigurationError as exc:
        raise ConfigurationError(f"{name}: {exc}") from exc


def _state_dir(environ: Mapping[str, str]) -> Path:
    """Absolute. A value that does not parse is reported once, as itself, and not by what hangs on it."""
    try:
        return parse_path(environ.get("SIDECAR_STATE_DIR") or DEFAULT_STATE_DIR).absolute()
    except ConfigurationError:
        return Path(DEFAULT_STATE_DIR)


def _value(variable: Variable, environ: Mapping[str, str], state_dir: Path) -> object:
    text = environ.get(variable.name) or None
    if variable.attribute is None:
        if text is not None and text != variable.default:
            raise ConfigurationError("not built yet; unset it")
        return None
    if text is None:
        if variable.required:
            raise ConfigurationError(f"required: {variable.help}")
        text = expand_default(variable, state_dir)
    return None if text is None else variable.kind.parse(text)


def _unknown_names(environ: Mapping[str, str]) -> list[str]:
    problems = []
    for name in sorted(environ):
        if (
            not name.startswith(PREFIX)
            or name in BY_NAME
            or not environ[name]
            or _SERVICE_LINK.fullmatch(name)
        ):
            continue
        close = difflib.get_close_matches(name.removeprefix(PREFIX), _SHORT_NAMES, n=1, cutoff=0.7)
        if close:
            hint = f"; did you mean {PREFIX}{close[0]}?"
        elif _OTHER_SERVICE_LINK.fullmatch(name):
            hint = "; if Kubernetes made it for a Service, set enableServiceLinks: false"
        else:
            hint = "; sidecar config env lists those there are"
        problems.append(
            f"{name!r} is not a setting{hint}" if not name.isprintable() else f"{name}: no such setting{hint}"
        )
    return problems


def _ignored(environ: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        name
        for name in sorted(environ)
        if _SERVICE_LINK.fullmatch(name) or (name.upper() in _PROXY_NAMES and environ[name])
    )


def _disagreements(values: Mapping[str, Any]) -> list[str]:
    """Problems between variables. One that failed by itself is not in ``values`` and judged no further."""
    problems = []
    match values.get("identity"):
        case "files":
            problems += [
                f"{name}: required with SIDECAR_IDENTITY=files"
                for name in ("SIDECAR_SVID_FILE", "SIDECAR_SVID_KEY_FILE", "SIDECAR_BUNDLE_FILE")
                if values.get(BY_NAME[name].attribute or "", "") is None
            ]
        case "embedded" if values.get("spiffe_id", "") is None:
            problems.append("SIDECAR_SPIFFE_ID: required with SIDECAR_IDENTITY=embedded")
        case "workload-api":
            problems.append("SIDECAR_IDENTITY: 'workload-api' is not built yet; set it to files or embedded")
    upstream, listen, status = values.get("upstream"), values.get("listen"), values.get("status")
    if upstream is not None and values.get("unsafe_upstream") is False and not upstream.is_local:
        problems.append(
            f"SIDECAR_UPSTREAM: {upstream.host!r} is not loopback, so calls would leave this machine in "
            "plaintext; use 127.0.0.1, [::1], localhost or unix:/path, or say SIDECAR_UNSAFE_UPSTREAM=true"
        )
    if (
        upstream is not None
        and listen is not None
        and upstream.is_local
        and upstream.port == listen.port != 0
    ):
        problems.append(
            f"SIDECAR_UPSTREAM: {upstream} is the port of SIDECAR_LISTEN; the sidecar would call itself"
        )
    if listen is not None and status is not None and listen.port == status.port != 0:
        problems.append(f"SIDECAR_STATUS: {status} has the port of SIDECAR_LISTEN; give each its own")
    return problems
