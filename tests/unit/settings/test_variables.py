from __future__ import annotations

import pytest

from sidecar.settings.variables import STATE_DIR, VARIABLES, expand_default, render_environment_table


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
def test_every_default_is_a_value_its_own_parser_takes(variable):
    text = expand_default(variable, "/var/lib/sidecar")
    if text is not None:
        variable.kind.parse(text)


def test_names_are_unique_and_attributes_follow_them():
    assert len({variable.name for variable in VARIABLES}) == len(VARIABLES)
    for variable in VARIABLES:
        if variable.attribute is not None:
            assert variable.attribute.removesuffix("_s") == variable.name.removeprefix("SIDECAR_").lower()


def test_attributes_of_durations_and_sizes_carry_their_unit():
    for variable in VARIABLES:
        if variable.attribute is not None:
            assert variable.kind.word.startswith("duration") == variable.attribute.endswith("_s")
            assert variable.kind.word.startswith("size") == variable.attribute.endswith("_bytes")


def test_the_table_has_one_row_per_variable_and_no_stray_bars():
    lines = render_environment_table().splitlines()
    assert len(lines) == len(VARIABLES) + 2
    assert all(line.count("|") == 5 for line in lines)
    assert "| `SIDECAR_POLICY` | path | required | the policy file |" in lines
    assert any(f"`unix:{STATE_DIR}/admin.sock`" in line for line in lines)
