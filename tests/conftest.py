"""What all tests share: a clean environment and the ``peer`` marker.

Variables that would configure a sidecar are taken out before any test runs: the sidecar refuses names that it
does not know, and a developer's own settings must not decide whether tests pass.

``@pytest.mark.peer("curl")`` marks a test that needs an outside program. Where it is missing the test is
skipped, with the reason in the summary; with ``SIDECAR_REQUIRE_PEERS=1``, as CI runs, it fails instead.
"""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRE_PEERS = os.environ.get("SIDECAR_REQUIRE_PEERS") == "1"
for _name in [name for name in os.environ if name.startswith(("SIDECAR_", "SPIFFE_"))]:
    del os.environ[_name]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose outside program is missing, before any of its fixtures is made."""
    missing = [name for mark in item.iter_markers("peer") for name in mark.args if shutil.which(name) is None]
    if not missing:
        return
    reason = f"needs {', '.join(missing)}, not found on the search path"
    if REQUIRE_PEERS:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
