from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from sidecar.admin.peercred import PeerCred
from sidecar.app.operations import Operations
from sidecar.authz.ports import NoGrants
from sidecar.settings import load_settings
from tests.fakes.certificates import DemoAuthority
from tests.fakes.clock import FakeClock

PEER = PeerCred(77, 1000, 1000)


class Book(NoGrants):
    """Grants as far as the operator sees them."""

    active_count = 1
    entries = 5

    def __init__(self) -> None:
        self.submitted: list[bytes] = []

    def listing(self):
        return [{"grant": "g1"}]

    async def submit_order(self, data):
        self.submitted.append(data)
        return {"result": "accepted"}


class Stage:
    """Operations over parts that a test sets."""

    def __init__(self) -> None:
        authority = DemoAuthority()
        clock = FakeClock()
        settings = load_settings(
            {
                "SIDECAR_POLICY": "/p",
                "SIDECAR_IDENTITY": "embedded",
                "SIDECAR_SPIFFE_ID": "spiffe://demo.test/x",
            }
        )
        self.fit = True
        self.records: list[tuple[str, dict]] = []
        self.book = Book()
        self.drained = 0
        snapshot = SimpleNamespace(
            svid=authority.issue("spiffe://demo.test/orders").svid, bundles=authority.bundles(), generation=3
        )
        identity = SimpleNamespace(snapshot=snapshot, trouble=None, is_fit=lambda: self.fit)
        self.audit = SimpleNamespace(
            available=True, seq=12, record=lambda event, body: self.records.append((event, body))
        )
        rules = SimpleNamespace(
            policy=SimpleNamespace(sha256="sha256:00", identities={"a": 1}),
            signers=SimpleNamespace(names=("oncall",)),
            loaded_at=clock.now(),
        )

        async def reload():
            return {"reloaded": True}

        def drain():
            self.drained += 1

        self.operations = Operations(
            settings,
            clock,
            identity,
            rules,
            self.book,
            self.audit,
            SimpleNamespace(connections=2, open_calls=1),
            port=lambda: 8443,
            reload=reload,
            drain=drain,
            explain=lambda question: {"asked": question.decode()},
        )
        self.operations.is_ready = True

    def failed(self) -> list[str]:
        return [check.name for check in self.operations.health("readyz").checks if not check.ok]


def test_the_status_is_json_and_answers_what_an_operator_asks_first():
    status = json.loads(json.dumps(Stage().operations.status()))
    assert status["spiffe_id"] == "spiffe://demo.test/orders"
    assert (status["ready"], status["draining"], status["connections"], status["open_calls"]) == (
        True,
        False,
        2,
        1,
    )
    assert status["svid"]["not_after"] == "2026-11-24T13:00:00Z" and status["svid"]["bundles"] == {
        "demo.test": 1
    }
    assert status["policy"]["sha256"] == "sha256:00" and status["audit"]["lines"] == 12
    assert status["break_glass"]["grants_in_force"] == 1


@pytest.mark.parametrize("name", ["started", "identity", "audit", "not-draining"])
def test_each_check_by_itself_makes_it_unready_and_never_dead(name):
    stage = Stage()
    assert stage.failed() == []
    match name:
        case "started":
            stage.operations.is_ready = False
        case "identity":
            stage.fit = False
        case "audit":
            stage.audit.available = False
        case "not-draining":
            stage.operations.is_draining = True
    assert stage.failed() == [name]
    assert not stage.operations.health("readyz").ok
    assert stage.operations.health("livez").ok
    assert stage.operations.status()["ready"] is False


def test_each_operation_leaves_a_record_with_its_peer():
    stage = Stage()
    assert asyncio.run(stage.operations.submit_order(b"order", PEER)) == {"result": "accepted"}
    assert asyncio.run(stage.operations.reload(PEER)) == {"reloaded": True}
    assert asyncio.run(stage.operations.drain(PEER))["draining"] is True
    assert stage.book.submitted == [b"order"] and stage.drained == 1
    assert stage.records == [
        ("admin", {"operation": "order", "uid": 1000, "pid": 77, "bytes": 5}),
        ("admin", {"operation": "reload", "uid": 1000, "pid": 77}),
        ("admin", {"operation": "drain", "uid": 1000, "pid": 77}),
    ]


def test_reading_leaves_no_record():
    stage = Stage()
    assert stage.operations.grants() == [{"grant": "g1"}]
    assert stage.operations.explain(b"x") == {"asked": "x"}
    stage.operations.status()
    assert stage.records == []
