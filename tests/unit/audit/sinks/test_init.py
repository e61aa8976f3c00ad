from __future__ import annotations

import pytest

from sidecar.audit.sinks import SINKS, load_sink
from sidecar.audit.sinks.stdout import StdoutSink
from sidecar.errors import ConfigurationError
from sidecar.settings.variables import AUDIT_SINKS
from tests.fakes.clock import FakeClock


def test_every_name_that_the_settings_take_has_a_sink():
    assert set(SINKS) == set(AUDIT_SINKS)
    assert isinstance(load_sink("stdout", FakeClock()), StdoutSink)


def test_an_unknown_name_is_a_mistake():
    with pytest.raises(ConfigurationError, match="'kafka'"):
        load_sink("kafka", FakeClock())
