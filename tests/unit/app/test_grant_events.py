from __future__ import annotations

import logging

from sidecar.app.grant_events import GrantEvents
from sidecar.metrics import SidecarMetrics


def test_what_happens_is_told_in_log_metric_and_record(caplog):
    metrics, records = SidecarMetrics(), []
    events = GrantEvents(metrics)
    events.record_to(lambda event, body: records.append((event, body)))
    with caplog.at_level(logging.INFO, "sidecar"):
        events("use", {"result": "ok", "grant": "g1", "call": "c1"})
    assert records == [("grant", {"what": "use", "result": "ok", "grant": "g1", "call": "c1"})]
    assert metrics.grant_events.labels("use", "ok").value == 1
    assert [(record.levelname, record.message, record.grant) for record in caplog.records] == [
        ("WARNING", "break-glass use", "g1")
    ]


def test_what_came_before_the_log_is_recorded_in_order():
    records = []
    events = GrantEvents(SidecarMetrics())
    events("recovered", {"result": "ok", "bytes": 7})
    events("void", {"result": "ok", "detail": "older"})
    events.record_to(lambda event, body: records.append(body["what"]))
    events("end", {"result": "ok"})
    assert records == ["recovered", "void", "end"]


def test_no_word_of_a_body_can_break_the_service_log(caplog):
    with caplog.at_level(logging.INFO, "sidecar"):
        GrantEvents(SidecarMetrics())(
            "submit", {"result": "refused", "name": "x", "message": "y", "args": "z"}
        )
    assert caplog.records[0].grant_message == "y"


def test_a_refusal_is_a_warning_whatever_it_is(caplog):
    with caplog.at_level(logging.INFO, "sidecar"):
        GrantEvents(SidecarMetrics())("revoke", {"result": "refused"})
        GrantEvents(SidecarMetrics())("end", {"result": "ok"})
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
