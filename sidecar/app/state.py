"""The state directory: made for its owner only, refused where somebody else may change it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sidecar.errors import StateError


def open_state_dir(path: Path) -> None:
    """Makes ``path`` (0700, with its parents) if it is missing, and checks whose it is.

    Raises :class:`StateError` when it is no directory, belongs to another user, or may be written by others:
    whoever can write there can forge grants and replace the log.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.stat(path)
    except FileExistsError as exc:
        raise StateError(f"the state directory {str(path)!r} is a file; name a directory") from exc
    except OSError as exc:
        raise StateError(
            f"the state directory {str(path)!r} cannot be made: {exc.strerror}; "
            "set SIDECAR_STATE_DIR to a directory that this user may write to"
        ) from exc
    if status.st_uid not in (os.geteuid(), 0):
        raise StateError(
            f"the state directory {str(path)!r} belongs to uid {status.st_uid}, not to uid {os.geteuid()}; "
            "chown it, or set SIDECAR_STATE_DIR to another one"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(
            f"the state directory {str(path)!r} may be written by others "
            f"(mode {stat.S_IMODE(status.st_mode):04o}); chmod it to 0700, or set SIDECAR_STATE_DIR to a "
            "directory below it, which is then made so"
        )
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StateError(f"the state directory {str(path)!r} may not be written by uid {os.geteuid()}")
