from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Iterable

import pytest

from sidecar.audit.anchors import read_anchors
from sidecar.audit.lines import Lines, Place
from sidecar.audit.report import BadLogError
from sidecar.audit.verify import Verifier, verify_log
from tests.fakes.audit import LOG, WALL_S, call, event, make_key, make_lines, start

KEY = make_key()
ALL = make_lines(KEY, 60)


def verify(lines: list[bytes], anchors: list[bytes] | None = None, name: str = "00000001.jsonl"):
    kept = None if anchors is None else read_anchors(anchors, KEY.public)
    return verify_log([(name, lines)], KEY.public, kept)


def test_a_whole_log_says_what_it_consists_of():
    report = verify(ALL)
    assert report.lines == len(ALL) and (report.first_seq, report.seq) == (1, len(ALL))
    assert report.signed_seq == report.seq and report.starts == 1
    assert report.checkpoints == sum(b'"checkpoint"' in line for line in ALL)
    assert (report.log, report.key, report.warnings) == (LOG, KEY.key_id, ())


def test_every_changed_byte_is_found_in_its_line():
    for number, line in enumerate(ALL):
        verifier = Verifier(KEY.public)
        verifier.begin_file("00000001.jsonl")
        for before in ALL[:number]:
            verifier.feed(before)
        for place in range(len(line)):
            changed = line[:place] + bytes([line[place] ^ 0x01]) + line[place + 1 :]
            rest = io.BytesIO(changed + b"".join(ALL[number + 1 :]))
            with pytest.raises(BadLogError) as found:
                finish(copy.copy(verifier), rest)
            assert found.value.line == number + 1, (place, str(found.value))


def finish(verifier: Verifier, lines: Iterable[bytes]) -> None:
    for line in lines:
        verifier.feed(line)
    verifier.end()


@pytest.mark.parametrize("number", range(2, len(ALL) - 1))
def test_which_of_two_lines_was_changed_shows_in_the_next(number):
    what = ALL[number - 1].replace(b"call-", b"cull-") if b"call-" in ALL[number - 1] else None
    link = re.sub(
        rb'"prev":"(.)', lambda match: b'"prev":"' + (b"1" if match[1] == b"0" else b"0"), ALL[number - 1]
    )
    for changed in (what, link):
        if changed is None:
            continue
        with pytest.raises(BadLogError) as found:
            verify([*ALL[: number - 1], changed, *ALL[number:]])
        assert found.value.line == number, str(found.value)


def test_of_the_last_two_lines_both_are_named():
    lines = Lines(Place(LOG), KEY, lambda: 0)
    data = lines.encode([start(KEY), call(1), call(2)]).replace(b"call-1", b"call-7")
    with pytest.raises(BadLogError, match="line 2 or line 3 was changed"):
        verify(data.splitlines(keepends=True))


@pytest.mark.parametrize("number", range(len(ALL)))
def test_every_removed_line_is_found(number):
    lines = ALL[:number] + ALL[number + 1 :]
    if number == len(ALL) - 1:
        assert verify(lines).seq == len(ALL) - 1, "a cut end shows only against an anchor"
        return
    with pytest.raises(BadLogError) as found:
        verify(lines)
    assert found.value.line == number + 1


@pytest.mark.parametrize("number", range(len(ALL)))
def test_every_doubled_line_is_found(number):
    with pytest.raises(BadLogError, match="been there already") as found:
        verify(ALL[: number + 1] + ALL[number:])
    assert found.value.line == number + 2


@pytest.mark.parametrize("number", range(len(ALL) - 1))
def test_every_swap_is_found(number):
    with pytest.raises(BadLogError) as found:
        verify([*ALL[:number], ALL[number + 1], ALL[number], *ALL[number + 2 :]])
    assert found.value.line == number + 1


@pytest.mark.parametrize("kept", range(1, len(ALL)))
def test_a_cut_is_found_if_and_only_if_an_anchor_is_newer(kept):
    cut = ALL[:kept]
    anchors = [line for line in ALL if b'"event":"checkpoint"' in line]
    assert verify(cut).seq == kept
    older = [line for line in anchors if json.loads(line)["seq"] <= kept]
    if older:
        assert verify(cut, older).anchors == len(older)
    for anchor in anchors:
        if anchor not in older:
            with pytest.raises(BadLogError, match="the end is missing") as found:
                verify(cut, [anchor])
            assert found.value.line == kept


def test_a_log_that_was_written_anew_does_not_meet_the_anchors():
    # Whoever has the log's key can sign another past; not the one that is kept elsewhere.
    anchors = [line for line in ALL if b'"event":"checkpoint"' in line]
    forged = make_lines(KEY, 60, entries=1)
    assert verify(forged).seq == len(ALL)
    with pytest.raises(BadLogError, match="rewritten") as found:
        verify(forged, anchors[-1:])
    assert found.value.line == json.loads(anchors[-1])["seq"]


def test_the_same_checkpoint_at_another_place_is_rewritten_too():
    longer = make_lines(KEY, 60, every=7)
    with pytest.raises(BadLogError, match="rewritten"):
        verify(longer, [line for line in ALL if b'"event":"checkpoint"' in line][:1])


def test_anchors_of_another_log_prove_nothing():
    other = make_lines(KEY, 20, log="f" * 32)
    with pytest.raises(BadLogError, match="no checkpoint of this log"):
        verify(ALL, [line for line in other if b'"event":"checkpoint"' in line])


def test_anchors_of_several_logs_are_told_apart():
    other = make_lines(KEY, 20, log="f" * 32)
    report = verify(ALL, ALL + other)
    assert report.anchors == report.checkpoints
    assert "other logs" in report.warnings[0]


def test_two_logs_of_one_key_cannot_be_joined():
    other = make_lines(KEY, 60, log="f" * 32)
    for place in (5, 11, 30):
        with pytest.raises(BadLogError):
            verify(ALL[:place] + other[place:])


def test_a_stranger_who_chains_well_lacks_the_key():
    forged = make_lines(make_key(2), 30)
    with pytest.raises(BadLogError, match="another key") as found:
        verify(forged)
    assert found.value.line == 1


def test_a_start_that_names_our_key_does_not_make_its_checkpoints_ours():
    lines = Lines(Place(LOG), make_key(2), lambda: 0)
    data = lines.encode([start(KEY)]) + lines.sign(WALL_S)
    with pytest.raises(BadLogError, match="another key signed") as found:
        verify(data.splitlines(keepends=True))
    assert found.value.line == 2


def test_a_torn_last_line_is_named():
    with pytest.raises(BadLogError, match="torn: 20 bytes") as found:
        verify([*ALL[:-1], ALL[-1][:20]])
    assert found.value.line == len(ALL)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([call(1)], "begins with a line 'start'"),
        ([event("start", log=LOG)], "does not name the log"),
        ([start(KEY), start(KEY, "e" * 32)], "of another log"),
    ],
)
def test_a_chain_with_the_wrong_lines_in_it_is_bad(records, message):
    lines = Lines(Place(LOG), KEY, lambda: 0)
    data = lines.encode(records) + lines.sign(WALL_S)
    with pytest.raises(BadLogError, match=message):
        verify(data.splitlines(keepends=True))


def test_a_checkpoint_of_another_log_in_the_chain_is_bad():
    lines = Lines(Place(LOG), KEY, lambda: 0)
    data = lines.encode([start(KEY)])
    lines.log = "e" * 32
    with pytest.raises(BadLogError, match="of another log"):
        verify((data + lines.sign(WALL_S)).splitlines(keepends=True))


def test_another_version_is_not_guessed_at():
    with pytest.raises(BadLogError, match="version 2"):
        verify([ALL[0].replace(b'"v":1', b'"v":2'), *ALL[1:]])


@pytest.mark.parametrize("lines", [[], [b"\n"], [b"{}\n"], [b"garbage\n"], [b"\0" * 100]])
def test_nothing_and_rubbish_are_no_log(lines):
    with pytest.raises(BadLogError):
        verify(lines)


def test_no_file_at_all_is_no_log():
    with pytest.raises(BadLogError, match="no line"):
        verify_log([], KEY.public)


# Several files


def rotated() -> list[tuple[str, list[bytes]]]:
    """One log in three files, each but the first beginning with the checkpoint before it."""
    ends = [number for number, line in enumerate(ALL, start=1) if b'"event":"checkpoint"' in line]
    first, second = ends[1], ends[3]
    return [
        ("00000001.jsonl", ALL[:first]),
        ("00000002.jsonl", ALL[first - 1 : second]),
        ("00000003.jsonl", ALL[second - 1 :]),
    ]


def test_files_of_one_log_are_one_chain():
    report = verify_log(rotated(), KEY.public)
    assert (report.files, report.lines, report.seq) == (3, len(ALL), len(ALL))


@pytest.mark.parametrize(
    ("gone", "message"),
    [(0, "00000001.jsonl: the file is missing"), (1, "00000002.jsonl: the file is missing")],
)
def test_a_missing_file_is_named(gone, message):
    files = rotated()
    del files[gone]
    with pytest.raises(BadLogError, match=re.escape(message)):
        verify_log(files, KEY.public)


def test_a_missing_last_file_shows_against_an_anchor_only():
    files = rotated()
    anchors = read_anchors(ALL, KEY.public)
    assert verify_log(files[:2], KEY.public).seq < len(ALL)
    with pytest.raises(BadLogError, match="the end is missing"):
        verify_log(files[:2], KEY.public, anchors)


def test_later_files_alone_are_proved_from_their_first_checkpoint_on():
    files = rotated()[1:]
    report = verify_log(files, KEY.public, whole=False)
    assert (report.first_seq, report.seq) == (json.loads(files[0][1][0])["seq"], len(ALL))
    with pytest.raises(BadLogError, match="begins with a checkpoint"):
        verify_log([("00000002.jsonl", files[0][1][1:])], KEY.public, whole=False)
    with pytest.raises(BadLogError, match="the beginning is missing"):
        verify_log([("other.jsonl", files[0][1])], KEY.public)


def test_later_files_alone_are_compared_with_the_anchors_that_they_reach():
    files = rotated()[1:]
    report = verify_log(files, KEY.public, read_anchors(ALL, KEY.public), whole=False)
    assert 0 < report.anchors < sum(b'"checkpoint"' in line for line in ALL)
    assert "before the first line" in report.warnings[0]
    first = next(line for line in ALL if b'"event":"checkpoint"' in line)
    with pytest.raises(BadLogError, match="no anchor lies within"):
        verify_log(files, KEY.public, read_anchors([first], KEY.public), whole=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files[0][1].pop(), "end is missing"),
        (lambda files: files[1][1].pop(0), "does not begin with the checkpoint"),
        (
            lambda files: files[1][1].__setitem__(0, files[1][1][0].replace(b"1", b"2", 1)),
            "does not begin with the checkpoint",
        ),
        (lambda files: files[1][1].clear(), "empty"),
        (lambda files: files[2][1].clear(), "empty"),
        (lambda files: files.insert(1, files[1]), "missing"),
        (lambda files: files.reverse(), "missing"),
    ],
)
def test_the_joint_of_two_files_is_checked(change, message):
    files = rotated()
    change(files)
    with pytest.raises(BadLogError, match=message):
        verify_log(files, KEY.public)


def test_a_file_that_repeats_any_other_line_is_no_next_file():
    end = next(number for number, line in enumerate(ALL, start=1) if b'"event":"checkpoint"' in line) - 1
    with pytest.raises(BadLogError, match="does not end in a checkpoint"):
        verify_log([("00000001.jsonl", ALL[:end]), ("00000002.jsonl", ALL[end - 1 :])], KEY.public)


# What is odd, but not proved to be bad


def test_a_clock_that_ran_backwards_is_a_warning():
    lines = Lines(Place(LOG), KEY, lambda: 0)
    data = (
        lines.encode([start(KEY)]) + lines.sign(WALL_S) + lines.encode([call(1)]) + lines.sign(WALL_S - 3600)
    )
    report = verify(data.splitlines(keepends=True))
    assert len(report.warnings) == 1 and "the clock went back" in report.warnings[0]


def test_calls_are_stamped_when_they_begin_so_that_their_order_says_nothing():
    lines = Lines(Place(LOG), KEY, lambda: 0)
    data = lines.encode([start(KEY), call(1, WALL_S + 5), call(2, WALL_S)]) + lines.sign(WALL_S + 9)
    assert verify(data.splitlines(keepends=True)).warnings == ()


def test_a_journal_of_grants_that_went_back_is_a_warning():
    entries = iter([7, 3])
    lines = Lines(Place(LOG), KEY, lambda: next(entries))
    data = lines.encode([start(KEY)]) + lines.sign(WALL_S) + lines.encode([call(1)]) + lines.sign(WALL_S)
    report = verify(data.splitlines(keepends=True))
    assert "from 7 entries to 3" in report.warnings[0]


def test_warnings_are_bounded():
    lines = Lines(Place(LOG), KEY, lambda: 0)
    data = lines.encode([start(KEY)])
    for number in range(100):
        data += lines.sign(WALL_S - number)
    report = verify(data.splitlines(keepends=True))
    assert len(report.warnings) == 21 and "79 more" in report.warnings[-1]


def test_lines_after_the_last_checkpoint_are_told_apart():
    lines = Lines(Place(LOG), KEY, lambda: 0)
    data = lines.encode([start(KEY), event("gap")]) + lines.sign(WALL_S) + lines.encode([call(1), call(2)])
    report = verify(data.splitlines(keepends=True))
    assert (report.seq, report.signed_seq, report.gaps) == (5, 3, 1)


def test_starts_after_a_crash_are_counted():
    lines = Lines(Place(LOG), KEY, lambda: 0)
    data = lines.encode([start(KEY, after="first"), start(KEY, after="crash"), start(KEY, after="clean")])
    report = verify(data.splitlines(keepends=True))
    assert (report.starts, report.crashes, report.signed_seq) == (3, 1, 0)


def test_a_verifier_takes_lines_one_by_one():
    verifier = Verifier(KEY.public)
    verifier.begin_file("00000001.jsonl")
    for line in ALL:
        verifier.feed(line)
    assert verifier.end().lines == len(ALL)
