"""The environment: every variable, its default, unit and meaning, and the checked value made from them."""

from sidecar.settings.loader import (
    Described,
    Settings,
    describe_settings,
    find_admin_socket,
    load_settings,
    warn_of,
)
from sidecar.settings.values import HostPort, Upstream
from sidecar.settings.variables import VARIABLES, Variable, render_environment_table

__all__ = [
    "VARIABLES",
    "Described",
    "HostPort",
    "Settings",
    "Upstream",
    "Variable",
    "describe_settings",
    "find_admin_socket",
    "load_settings",
    "render_environment_table",
    "warn_of",
]
