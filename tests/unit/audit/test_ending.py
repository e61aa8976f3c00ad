from __future__ import annotations

import pytest

from sidecar.audit.chain import hash_line
from sidecar.audit.ending import read_ending
from sidecar.audit.lines import Lines, Place
from sidecar.errors import StateError
from tests.fakes.audit import LOG, WALL_S, call, event, make_key, make_lines, start

KEY = make_key()
ALL = make_lines(KEY, 25)


def read(tmp_path, data: bytes, *, is_first: bool = True, key: int = 1):
    path = tmp_path / "00000001.jsonl"
    path.write_bytes(data)
    return read_ending(path, make_key(key).public, is_first=is_first)


def lines(
    *entries: object, signed: int | None = None, more: tuple[object, ...] = (), entries_count: int = 4
) -> bytes:
    writer = Lines(Place(LOG), KEY, lambda: entries_count)
    data = writer.encode(list(entries))
    if signed is not None:
        data += writer.sign(WALL_S)
    return data + (writer.encode(list(more)) if more else b"")


def test_the_next_line_follows_the_last(tmp_path):
    ending = read(tmp_path, b"".join(ALL))
    assert (ending.log, ending.seq, ending.torn, ending.damage) == (LOG, len(ALL), 0, None)
    assert ending.head == hash_line(ALL[-1][:-1])
    assert ending.size == sum(map(len, ALL))
    assert ending.checkpoint.seq == len(ALL)


@pytest.mark.parametrize("kept", range(1, len(ALL) + 1))
@pytest.mark.parametrize("torn", [b"", b"{", b'{"v":1,"seq":99,"event":"ca', b"\0" * 5000])
def test_what_follows_the_last_newline_is_torn(tmp_path, kept, torn):
    data = b"".join(ALL[:kept])
    ending = read(tmp_path, data + torn)
    assert (ending.seq, ending.size, ending.torn) == (kept, len(data), len(torn))
    assert ending.head == hash_line(ALL[kept - 1][:-1]) and ending.damage is None


@pytest.mark.parametrize("data", [b"", b"{", b"\0" * 100])
def test_a_first_file_without_a_whole_line_is_no_end(tmp_path, data):
    assert read(tmp_path, data) is None
    with pytest.raises(StateError, match="is empty"):
        read(tmp_path, data, is_first=False)


def test_a_process_that_wrote_its_last_line_ended_cleanly(tmp_path):
    clean = lines(start(KEY), call(1), event("stop"), signed=1)
    assert read(tmp_path, clean).is_clean
    assert not read(tmp_path, clean + b"x").is_clean
    assert not read(tmp_path, lines(start(KEY), call(1), signed=1)).is_clean
    assert not read(tmp_path, lines(start(KEY), event("stop"))).is_clean
    assert not read(tmp_path, lines(start(KEY), event("stop"), signed=1, more=(call(1),))).is_clean


def test_only_the_end_of_a_large_file_is_read(tmp_path, monkeypatch):
    big = make_lines(KEY, 3000, every=200)
    path = tmp_path / "00000001.jsonl"
    path.write_bytes(b"".join(big))
    monkeypatch.setattr("sidecar.audit.ending._FIRST_BLOCK_BYTES", 4096)
    ending = read_ending(path, KEY.public, is_first=True)
    assert (ending.seq, ending.head, ending.size) == (len(big), hash_line(big[-1][:-1]), path.stat().st_size)
    # However far back the last checkpoint is, it is found.
    cut = 2990 + 14
    path.write_bytes(b"".join(big[:cut]))
    ending = read_ending(path, KEY.public, is_first=True)
    assert ending.seq == cut and ending.checkpoint is not None and ending.damage is None


def test_before_the_first_checkpoint_the_start_names_the_log(tmp_path):
    ending = read(tmp_path, lines(start(KEY), call(1)))
    assert (ending.log, ending.checkpoint, ending.seq) == (LOG, None, 2)
    with pytest.raises(StateError, match="begun with another key"):
        read(tmp_path, lines(start(make_key(2)), call(1)))
    with pytest.raises(StateError, match="does not begin with a line 'start'"):
        read(tmp_path, lines(call(1)))


def test_a_last_checkpoint_of_another_key_is_refused(tmp_path):
    with pytest.raises(StateError, match="does not hold"):
        read(tmp_path, b"".join(ALL), key=2)


def test_a_last_checkpoint_that_was_changed_is_refused(tmp_path):
    data = lines(start(KEY), signed=1).replace(b'"entries":4', b'"entries":9')
    with pytest.raises(StateError, match="signature"):
        read(tmp_path, data)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data: data.replace(b"call-7", b"call-9"), "prev of seq 4"),
        (lambda data: data.replace(b'"seq":4', b'"seq":6'), "expected seq 4, got 6"),
        (lambda data: data + b"garbage\n", "not a JSON object"),
        (lambda data: data + b"\0\0\0\n", "not a JSON object"),
    ],
)
def test_damage_after_the_last_checkpoint_is_told_and_gone_on_from(tmp_path, change, what):
    data = change(lines(start(KEY), signed=1, more=(call(7), call(8))))
    ending = read(tmp_path, data)
    assert what in ending.damage
    assert ending.size == len(data), "no whole line is ever taken away"
    assert ending.seq >= 4


def test_lines_of_rubbish_alone_are_nothing_to_go_on_from(tmp_path):
    with pytest.raises(StateError, match="can be read"):
        read(tmp_path, b"rubbish\n" * 3)
