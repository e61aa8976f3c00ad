"""The limits are the settings of the same names."""

from __future__ import annotations

from pathlib import Path

from sidecar.proxy.limits import ProxyLimits, build_limits
from sidecar.settings import load_settings

ENVIRONMENT = {
    "SIDECAR_POLICY": "/policy.yaml",
    "SIDECAR_IDENTITY": "embedded",
    "SIDECAR_SPIFFE_ID": "spiffe://demo.test/orders",
}


def test_the_defaults_are_those_of_the_settings():
    assert build_limits(load_settings(ENVIRONMENT)) == ProxyLimits()


def test_a_setting_changes_its_limit():
    settings = load_settings({**ENVIRONMENT, "SIDECAR_MAX_BODY_BYTES": "1KiB", "SIDECAR_HEAD_TIMEOUT": "3s"})
    assert build_limits(settings) == ProxyLimits(max_body_bytes=1024, head_timeout_s=3.0)
    assert Path(settings.policy)
