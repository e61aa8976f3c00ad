from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from sidecar.errors import PolicyError
from sidecar.policy.engines import ENGINES, build_engine
from sidecar.policy.engines.builtin import BuiltinEngine
from sidecar.policy.model import Policy

EMPTY = Policy("sha256:00", {}, {}, {})


@pytest.mark.parametrize("name", ENGINES)
def test_each_engine_is_found_by_its_name(name):
    assert build_engine(replace(EMPTY, engine=name)).judge is not None


def test_the_default_is_the_built_in_one():
    assert isinstance(build_engine(EMPTY), BuiltinEngine)


@pytest.mark.parametrize("name", ["", "cedar", "opa", "Builtin", "os:system"])
def test_another_name_is_refused(name):
    with pytest.raises(PolicyError, match="known are builtin"):
        build_engine(replace(EMPTY, engine=name))


def test_no_engine_is_imported_before_it_is_chosen(monkeypatch):
    monkeypatch.setitem(ENGINES, "other", "sidecar.policy.engines.not_there:Engine")
    build_engine(EMPTY)
    assert "sidecar.policy.engines.not_there" not in sys.modules
