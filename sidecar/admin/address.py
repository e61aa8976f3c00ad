"""Addresses of Unix sockets whose path is longer than the kernel takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.errors import UnavailableError

# sun_path of unix(7) has 108 bytes, the terminating NUL included.
LONGEST_BYTES = 107


@contextmanager
def open_address(path: Path) -> Iterator[str]:
    """A text for ``bind`` or ``connect`` that reaches ``path``, valid inside the ``with`` block only.

    A path that does not fit goes through a descriptor of its directory (``/proc/self/fd/N/name``). Raises
    :class:`UnavailableError` when the directory cannot be opened or the last name alone is too long.
    """
    if len(os.fsencode(path)) <= LONGEST_BYTES:
        yield str(path)
        return
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise UnavailableError(f"{str(path.parent)!r} cannot be opened: {exc.strerror}") from exc
    try:
        short = f"/proc/self/fd/{directory}/{path.name}"
        if len(os.fsencode(short)) > LONGEST_BYTES:
            raise UnavailableError(f"{path.name!r} is too long a name for a socket")
        yield short
    finally:
        os.close(directory)
