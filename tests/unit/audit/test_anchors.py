from __future__ import annotations

import json

import pytest

from sidecar.audit.anchors import read_anchors
from sidecar.audit.chain import write_checkpoint
from sidecar.audit.record import format_ts
from sidecar.errors import VerificationError
from tests.fakes.audit import LOG, WALL_S, make_key, make_lines

KEY = make_key()
ALL = make_lines(KEY, 30)


def checkpoint(size: int, head: str = "a" * 64, key: int = 1) -> bytes:
    return write_checkpoint(LOG, size, head, 0, format_ts(WALL_S), make_key(key)) + b"\n"


def test_checkpoints_are_found_between_other_lines():
    anchors = read_anchors([b"service log\n", b"\xff\xfe\n", b"\n", *ALL], KEY.public)
    checkpoints = [json.loads(line)["seq"] for line in ALL if b'"event":"checkpoint"' in line]
    assert sorted(anchors.of_log(LOG)) == checkpoints
    assert anchors.of_log("another") == {}


def test_line_ends_of_other_systems_and_none_at_all_are_taken():
    line = checkpoint(3)[:-1]
    assert list(read_anchors([line + b"\r\n", line], KEY.public).of_log(LOG)) == [4]


@pytest.mark.parametrize("lines", [[], [b"nothing\n"], ALL[:1], [checkpoint(3, key=2)]])
def test_no_anchor_of_the_key_is_an_error_and_not_an_empty_proof(lines):
    with pytest.raises(VerificationError, match="no checkpoint of the key"):
        read_anchors(lines, KEY.public)


def test_those_of_other_keys_are_counted_only():
    assert read_anchors([checkpoint(3), checkpoint(3, key=2)], KEY.public).foreign == 1


def test_an_anchor_that_was_changed_is_named():
    bad = checkpoint(3).replace(b'"entries":0', b'"entries":1')
    with pytest.raises(VerificationError, match="line 2 of the anchors"):
        read_anchors([checkpoint(2), bad], KEY.public)


def test_two_histories_are_told():
    with pytest.raises(VerificationError, match="two histories"):
        read_anchors([checkpoint(3), checkpoint(3, head="b" * 64)], KEY.public)
