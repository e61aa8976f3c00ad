from __future__ import annotations

import os
import socket

import pytest

from sidecar.admin.address import LONGEST_BYTES, open_address
from sidecar.errors import UnavailableError


def padded(tmp_path, length: int):
    """A path of exactly ``length`` bytes below an existing directory."""
    directory = tmp_path
    while length - len(os.fsencode(directory)) > 60:
        directory = directory / ("d" * 40)
        directory.mkdir()
    return directory / ("s" * (length - len(os.fsencode(directory)) - 1))


def test_a_missing_directory_is_an_error(tmp_path):
    with (
        pytest.raises(UnavailableError, match="cannot be opened"),
        open_address(tmp_path / ("d" * 120) / "a.sock"),
    ):
        pass


def test_a_name_that_never_fits_is_an_error(tmp_path):
    with pytest.raises(UnavailableError, match="too long a name"), open_address(tmp_path / ("s" * 120)):
        pass


def test_a_path_that_fits_stays_as_it_is(tmp_path):
    with open_address(tmp_path / "a.sock") as address:
        assert address == str(tmp_path / "a.sock")


@pytest.mark.parametrize("length", [LONGEST_BYTES, LONGEST_BYTES + 1, 300])
def test_sockets_bind_and_answer_at_any_length(tmp_path, length):
    path = padded(tmp_path, length)
    assert len(os.fsencode(path)) == length
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with open_address(path) as address:
            server.bind(address)
        server.listen()
        assert path.is_socket()
        with open_address(path) as address:
            client.connect(address)


def test_no_descriptor_is_left(tmp_path):
    path = padded(tmp_path, 200)
    before = os.listdir("/proc/self/fd")
    with open_address(path):
        pass
    assert len(os.listdir("/proc/self/fd")) == len(before)
