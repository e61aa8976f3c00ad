"""What all tests share: the ``peer`` marker.

``@pytest.mark.peer("curl")`` marks a test that needs an outside program. Where it is missing the test is
skipped, with the reason in the summary; with ``SIDECAR_REQUIRE_PEERS=1``, as CI runs, it fails instead.
"""

from __future__ import annotations

import os
import shutil

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose outside program is missing, before any of its fixtures is made."""
    missing = [name for mark in item.iter_markers("peer") for name in mark.args if shutil.which(name) is None]
    if not missing:
        return
    reason = f"needs {', '.join(missing)}, not found on the search path"
    if os.environ.get("SIDECAR_REQUIRE_PEERS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
