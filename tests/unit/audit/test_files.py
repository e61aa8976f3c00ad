from __future__ import annotations

import pytest

from sidecar.audit.files import parse_number, show_number, sort_files


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("00000001.jsonl", 1), ("12345678.jsonl", 12345678), ("00000000.jsonl", None), ("1.jsonl", None),
        ("00000001.jsonl\n", None), ("00000001.json", None), ("000000001.jsonl", None), ("٠٠٠٠٠٠٠١.jsonl", None),
        (".next", None), ("", None),
    ],
)  # fmt: skip
def test_only_the_logs_own_names_have_a_number(name, number):
    assert parse_number(name) == number


def test_names_sort_as_they_were_written():
    names = [show_number(number) for number in (12, 2, 1)]
    assert sort_files([*names, "reserve", "copy.jsonl"]) == [
        "00000001.jsonl",
        "00000002.jsonl",
        "00000012.jsonl",
    ]
