from __future__ import annotations

from sidecar.audit.report import CLAIM, BadLogError
from sidecar.errors import VerificationError


def test_a_bad_line_is_named_and_so_is_a_bad_file():
    error = BadLogError("00000001.jsonl", 7, "it was changed")
    assert str(error) == "00000001.jsonl:7: it was changed"
    assert (error.file, error.line, error.what, error.exit_code) == ("00000001.jsonl", 7, "it was changed", 3)
    assert (
        str(BadLogError("00000002.jsonl", 0, "the file is missing")) == "00000002.jsonl: the file is missing"
    )
    assert isinstance(error, VerificationError)


def test_no_more_is_claimed_than_can_be_held():
    assert "up to the last anchored checkpoint" in CLAIM and "root can stop logging" in CLAIM
