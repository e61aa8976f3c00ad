from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.authz.recent import Recent


@given(st.integers(1, 5), st.lists(st.integers(0, 12)))
def test_the_entries_used_last_are_there_and_the_number_is_bounded(size, keys):
    recent: Recent[int, str] = Recent(size)
    used: list[int] = []
    for key in keys:
        if recent.get(key) is None:
            recent.put(key, f"value {key}")
        used = [each for each in used if each != key] + [key]
        assert len(recent) <= 2 * size
        for late in used[-size:]:
            assert late in recent._young or late in recent._old
    for key in used:
        assert recent.get(key) in (None, f"value {key}")


def test_what_is_used_again_and_again_stays():
    recent: Recent[int, int] = Recent(4)
    recent.put(-1, 7)
    for key in range(100):
        assert recent.get(-1) == 7
        recent.put(key, key)
    assert recent.get(0) is None


def test_no_size_is_a_mistake():
    with pytest.raises(ValueError, match="no size"):
        Recent(0)
