from __future__ import annotations

import json

import pytest

from sidecar.audit.chain import hash_line, read_checkpoint
from sidecar.audit.lines import Lines, Place
from tests.fakes.audit import LOG, WALL_S, call, event, make_key, start

KEY = make_key()


def make(place: Place | None = None) -> Lines:
    return Lines(place or Place(LOG), KEY, lambda: 5)


def test_each_line_follows_from_the_one_before():
    lines = make()
    data = lines.encode([start(KEY), call(1), event("admin", operation="reload")])
    written = data.splitlines()
    assert data.endswith(b"\n") and len(written) == 3
    previous = None
    for seq, line in enumerate(written, start=1):
        record = json.loads(line)
        assert (record["seq"], record["prev"]) == (seq, previous)
        previous = hash_line(line)
    assert (lines.seq, lines.head, lines.unsigned) == (3, previous, 3)


def test_it_goes_on_from_its_place():
    lines = make(Place(LOG, seq=41, head="ab" * 32))
    record = json.loads(lines.encode([call(1)]))
    assert (record["seq"], record["prev"]) == (42, "ab" * 32)


def test_a_checkpoint_covers_all_lines_so_far():
    lines = make()
    lines.encode([start(KEY)])
    head = lines.head
    line = lines.sign(WALL_S)
    proven = read_checkpoint(line[:-1], KEY.public)
    assert (proven.log, proven.size, proven.head, proven.entries) == (LOG, 1, head, 5)
    assert (lines.unsigned, lines.checkpoint, lines.seq) == (0, line[:-1], 2)
    lines.encode([call(1)])
    assert lines.checkpoint is None


def test_before_the_first_line_there_is_nothing_to_sign():
    with pytest.raises(ValueError, match="before the first line"):
        make().sign(WALL_S)


@pytest.mark.parametrize(
    ("name", "wanted"), [("grant", True), ("gap", True), ("start", True), ("drain", True), ("admin", False)]
)
def test_some_events_want_a_checkpoint(name, wanted):
    lines = make()
    lines.encode([event(name)])
    assert lines.wants_checkpoint is wanted
    lines.sign(WALL_S)
    assert not lines.wants_checkpoint
