from __future__ import annotations

import pytest

from sidecar.audit.start import parse_stated_key, read_start
from sidecar.errors import VerificationError
from tests.fakes.audit import LOG, make_key, make_lines

KEY = make_key()
ALL = make_lines(KEY, 3)
NO_START = (ALL[1], b"", b"{}", b"[" * 100_000, b'{"log":1,"public_key":""}')


def test_a_start_names_its_log_and_its_key():
    assert read_start(ALL[0]).log == LOG
    stated = parse_stated_key(ALL[0])
    assert stated is not None and stated.public_bytes_raw() == KEY.public.public_bytes_raw()


@pytest.mark.parametrize("line", NO_START)
def test_another_line_names_none(line):
    with pytest.raises(VerificationError):
        read_start(line)
    assert parse_stated_key(line) is None


@pytest.mark.parametrize("key", [b"", b"AAAA", b"!", b"A" * 43])
def test_what_is_no_key_is_none(key):
    assert parse_stated_key(b'{"log":"","public_key":"%s"}' % key) is None
