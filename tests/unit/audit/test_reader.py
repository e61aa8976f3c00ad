from __future__ import annotations

import pytest

from sidecar.audit import reader
from sidecar.audit.reader import Follower, list_log, read_backwards
from sidecar.errors import UnavailableError
from tests.fakes.audit import make_key, make_lines

ALL = make_lines(make_key(), 30)


def write(directory, number: int, lines: list[bytes], torn: bytes = b"") -> None:
    (directory / f"{number:08d}.jsonl").write_bytes(b"".join(lines) + torn)


def bare(lines: list[bytes]) -> list[bytes]:
    return [line[:-1] for line in lines]


@pytest.mark.parametrize("block", [1, 7, 64, 500, 1 << 16])
@pytest.mark.parametrize("torn", [b"", b"{", b'{"half":' + b"x" * 700])
def test_lines_come_newest_first_and_a_torn_one_not_at_all(tmp_path, monkeypatch, block, torn):
    monkeypatch.setattr(reader, "_BLOCK_BYTES", block)
    write(tmp_path, 1, ALL, torn)
    assert list(read_backwards(tmp_path)) == bare(ALL)[::-1]


def test_repeated_checkpoints_are_left_out(tmp_path):
    write(tmp_path, 1, ALL[:12])
    write(tmp_path, 2, ALL[11:23])
    write(tmp_path, 3, ALL[22:])
    assert list(read_backwards(tmp_path)) == bare(ALL)[::-1]


@pytest.mark.parametrize("data", [b"", b"torn"])
def test_a_file_without_a_line_has_none(tmp_path, data):
    write(tmp_path, 1, [], data)
    assert list(read_backwards(tmp_path)) == []


def test_no_log_is_told(tmp_path):
    with pytest.raises(UnavailableError, match="no audit log in"):
        list_log(tmp_path)
    with pytest.raises(UnavailableError, match="No such file"):
        list_log(tmp_path / "gone")


def test_a_follower_sees_what_comes_across_files_and_each_line_once(tmp_path):
    write(tmp_path, 1, ALL[:5], ALL[5][:30])
    follower = Follower(tmp_path)
    assert follower.read() == []
    write(tmp_path, 1, ALL[:8], ALL[8][:1])
    assert follower.read() == bare(ALL[5:8])
    write(tmp_path, 1, ALL[:12])
    write(tmp_path, 2, ALL[11:15])
    write(tmp_path, 3, ALL[14:20], b"{")
    assert follower.read() == bare(ALL[8:20])
    assert follower.read() == []
    follower.close()


def test_a_follower_survives_that_a_torn_line_is_cut_back(tmp_path):
    write(tmp_path, 1, ALL[:5])
    follower = Follower(tmp_path)
    with (tmp_path / "00000001.jsonl").open("ab") as file:
        file.write(b"torn and long enough to be seen")
        file.flush()
        assert follower.read() == []
        file.truncate(sum(map(len, ALL[:5])))
        assert follower.read() == []
        file.seek(0, 2)
        file.write(ALL[5])
        file.flush()
    assert follower.read() == bare(ALL[5:6])
    follower.close()
