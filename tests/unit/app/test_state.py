from __future__ import annotations

import os
import stat

import pytest

from sidecar.app.state import open_state_dir
from sidecar.errors import StateError


def test_a_missing_directory_is_made_for_its_owner_only(tmp_path):
    path = tmp_path / "a" / "state"
    open_state_dir(path)
    open_state_dir(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777, 0o720])
def test_one_that_others_may_write_to_is_refused(tmp_path, mode):
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(StateError, match="may be written by others"):
        open_state_dir(path)


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
def test_one_that_others_may_read_is_taken(tmp_path, mode):
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(mode)
    open_state_dir(path)


def test_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="is a file"):
        open_state_dir(tmp_path / "state")


def test_a_place_that_cannot_be_made_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="set SIDECAR_STATE_DIR"):
        open_state_dir(tmp_path / "file" / "state")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_one_of_another_user_is_refused(tmp_path):
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    os.chown(path, 4242, 4242)
    with pytest.raises(StateError, match="belongs to uid 4242"):
        open_state_dir(path)
