from __future__ import annotations

import asyncio

import pytest

from sidecar.app.rules import Rules, read_rules
from sidecar.errors import ProblemsError
from sidecar.metrics import SidecarMetrics
from tests.fakes.clock import FakeClock

POLICY = """\
version: 1
owners:
  team: {contact: "#team"}
scopes:
  read:
    - {methods: [GET], paths: ["/x"]}
identities:
  - {id: "spiffe://demo.test/web", owner: team, kind: service, scopes: [read]}
"""


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def test_a_changed_policy_is_taken_over_and_recorded(policy):
    metrics, records = SidecarMetrics(), []
    rules = Rules(policy, None, FakeClock(), metrics)
    before = rules.policy.sha256
    policy.write_text(POLICY.replace("GET", "HEAD"))
    assert asyncio.run(rules.reload(lambda *record: records.append(record))) is True
    assert rules.policy.sha256 != before
    assert records == [
        ("policy", {"result": "ok", "policy": rules.policy.sha256, "before": before, "changed": True})
    ]
    assert asyncio.run(rules.reload(lambda *record: None)) is False
    assert f'sidecar_policy_info{{sha256="{rules.policy.sha256}"}} 1' in metrics.registry.render().decode()


def test_a_bad_policy_and_bad_signers_change_nothing_and_all_mistakes_are_told(policy, tmp_path):
    signers = tmp_path / "signers"
    signers.touch(mode=0o600)
    metrics, records = SidecarMetrics(), []
    rules = Rules(policy, signers, FakeClock(), metrics)
    before = rules.policy, rules.signers
    policy.write_text(POLICY.replace("version: 1", "version: 7").replace("owner: team,", "owner: nobody,"))
    signers.write_text("nonsense\n")
    with pytest.raises(ProblemsError) as raised:
        asyncio.run(rules.reload(lambda *record: records.append(record)))
    assert len(raised.value.problems) >= 3
    assert any("signers:1" in problem for problem in raised.value.problems)
    assert (rules.policy, rules.signers) == before
    assert records[0][1]["result"] == "failed" and records[0][1]["policy"] == before[0].sha256
    assert metrics.policy_reloads.labels("failed").value == 1


def test_bad_signers_alone_keep_a_good_new_policy_out(policy, tmp_path):
    signers = tmp_path / "signers"
    signers.touch(mode=0o600)
    rules = Rules(policy, signers, FakeClock(), SidecarMetrics())
    before = rules.policy
    policy.write_text(POLICY.replace("GET", "HEAD"))
    signers.chmod(0o666)
    with pytest.raises(ProblemsError, match="chmod"):
        asyncio.run(rules.reload(lambda *record: None))
    assert rules.policy is before


def test_without_a_signers_file_nobody_signs(policy):
    assert read_rules(policy, None)[1].names == ()
