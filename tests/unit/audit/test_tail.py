from __future__ import annotations

import errno

import pytest

from sidecar.audit.tail import Tail
from tests.fakes.audit import FakeDisk, FakeFile, fail

LINES = (b"one\n", b"two\nthree\n", b"four\n")


def make(disk: FakeDisk | None = None) -> tuple[Tail, FakeFile]:
    disk = disk or FakeDisk()
    tail = Tail(disk.files[0], 0)
    for number, data in enumerate(LINES):
        tail.append(data, 1, len(data), float(number))
    return tail, disk.files[0]


def test_what_is_appended_is_written_in_order_and_kept_until_it_is_on_disk():
    tail, file = make()
    assert tail and tail.since_s == 0.0
    tail.write()
    assert bytes(file.data) == b"".join(LINES)
    assert (tail.written_records, tail.synced_records, tail.blobs, tail.dropped) == (3, 0, 3, 0)
    tail.drop(2, 2)
    assert (tail.since_s, tail.synced_records, tail.dropped) == (2.0, 2, 2)
    tail.drop(3, 3)
    assert not tail and tail.since_s is None


def test_written_again_it_lies_where_it_lay():
    tail, file = make()
    tail.write()
    tail.drop(1, 1)
    file.data[4:] = b"?" * (len(file.data) - 4)
    tail.rewrite()
    tail.write()
    assert bytes(file.data) == b"".join(LINES)


def test_a_failure_half_way_is_gone_on_with():
    disk = FakeDisk()
    taken = iter([4, 6])

    def fault(operation: str, number: int) -> int | None:
        if operation == "write":
            count = next(taken, None)
            if count is None:
                raise fail(errno.EIO)
            return count
        return None

    disk.fault = fault
    tail, file = make(disk)
    with pytest.raises(OSError, match="Input/output"):
        tail.write()
    assert bytes(file.data) == b"one\ntwo\n"
    disk.fault = lambda operation, number: None
    tail.write()
    assert bytes(file.data) == b"".join(LINES)


def test_whole_lines_of_a_blob_that_failed_stay():
    disk = FakeDisk()
    tail = Tail(disk.files[0], 0)
    tail.append(b"two\nthree\n", 2, 10, 0.0)
    answers = iter([6])

    def fault(operation: str, number: int) -> int | None:
        if operation != "write":
            return None
        count = next(answers, None)
        if count is None:
            raise fail(errno.EIO)
        return count

    disk.fault = fault
    with pytest.raises(OSError, match="Input/output"):
        tail.write()
    assert bytes(disk.files[0].data) == b"two\n"


def test_writing_again_never_cuts_back_what_the_kernel_has():
    disk = FakeDisk()
    tail, file = make(disk)
    tail.write()
    tail.rewrite()

    def fault(operation: str, number: int) -> int | None:
        raise fail(errno.EIO)

    disk.fault = fault
    with pytest.raises(OSError, match="Input/output"):
        tail.write()
    assert bytes(file.data) == b"".join(LINES)
    assert "truncate" not in disk.operations


def test_the_next_file_begins_at_its_own_offset():
    tail, file = make()
    with pytest.raises(ValueError, match="on disk"):
        tail.turn_to(file, 0)
    tail.write()
    tail.drop(3, 3)
    disk = FakeDisk()
    assert tail.turn_to(disk.create_next(b"first\n"), 6) is file
    tail.append(b"more\n", 1, 5, 9.0)
    tail.write()
    assert bytes(disk.files[1].data) == b"first\nmore\n"
