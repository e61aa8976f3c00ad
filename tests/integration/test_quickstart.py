"""The README's quick start, typed in as it stands there; only the ports are other ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.cli.demo_world import answers, find_example, free_ports, open_world
from sidecar.clock import SYSTEM_CLOCK

pytestmark = pytest.mark.integration

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def block(name: str) -> str:
    """The code block below the mark ``quickstart:name``."""
    found = re.search(
        rf"<!-- quickstart:{name} -->\n```\w+\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE
    )
    assert found is not None, name
    return found[1]


@pytest.mark.peer("curl")
def test_the_embedded_quick_start_works_as_it_is_written(tmp_path: Path) -> None:
    listen, status, service = free_ports(3)
    (tmp_path / "policy.yaml").write_text(block("policy"))
    start = block("embedded").replace(":8080", f":{service}")
    ask = block("curl").replace(":8443", f":{listen}")
    # What a reader does not type: other ports, waiting for a moment, the end of it all.
    script = f"""
set -eu
export PATH="{Path(sys.executable).parent}:$PATH"
export SIDECAR_LISTEN=127.0.0.1:{listen} SIDECAR_STATUS=127.0.0.1:{status} SIDECAR_DRAIN_DELAY=100ms
{start}
trap 'kill $! && wait' EXIT
for _ in $(seq 100); do
  sidecar probe readyz && test -e state/issuer/svids/web/bundle.pem && break
  sleep 0.1
done >/dev/null 2>&1
{ask}
"""
    with open_world(SYSTEM_CLOCK, tmp_path / "world") as world:
        program = [sys.executable, str(find_example() / "service.py"), "--listen", f"127.0.0.1:{service}"]
        started = world.start("orders", program)
        world.wait_for("the service answers", lambda: answers(service, "/healthz"), started)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"id": 42' in done.stdout
    assert '"caller": "spiffe://shop.test/web"' in done.stdout
    assert '"reason":"scope"' in done.stdout.replace(" ", "")
