"""The data plane's limits and deadlines as one value; what each is for and what strikes: docs/limits.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidecar.settings import Settings

BUFFER_HIGH_BYTES: Final = 64 * 1024
"""Above this much unsent or unread, the side that sends is no longer read."""
BUFFER_LOW_BYTES: Final = 16 * 1024
REST_BYTES: Final = 64 * 1024
"""How much of a body that nobody wants is read, and for how long, before the connection is closed instead."""
REST_S: Final = 1.0
OPEN_LINE_AFTER_S: Final = 10.0
SWEEP_S: Final = 0.25
IDLE_CHECK_S: Final = 1.0
"""An idle connection is looked at this often only; with ten thousand of them every sweep counts."""
ANNOUNCE_S: Final = 30.0
"""A connection's end is announced this long before, or in the last tenth of its life if that is shorter."""
WRITE_PROGRESS_BYTES: Final = 1024
"""A caller who takes less than this in the write timeout counts as not reading."""


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """One attribute per setting of the same name; ``max_body_bytes`` None means off."""

    head_timeout_s: float = 10.0
    idle_timeout_s: float = 300.0
    stream_idle_timeout_s: float = 300.0
    request_timeout_s: float = 300.0
    write_timeout_s: float = 30.0
    max_connection_age_s: float = 3600.0
    max_request_line_bytes: int = 8 * 1024
    max_header_bytes: int = 32 * 1024
    max_header_fields: int = 100
    max_body_bytes: int | None = None
    upstream_connect_timeout_s: float = 1.0
    upstream_response_timeout_s: float = 15.0
    upstream_idle_timeout_s: float = 60.0
    max_upstream_connections: int = 512
    max_response_head_bytes: int = 64 * 1024


def build_limits(settings: Settings) -> ProxyLimits:
    """The limits that the environment sets."""
    return ProxyLimits(**{name: getattr(settings, name) for name in ProxyLimits.__dataclass_fields__})
