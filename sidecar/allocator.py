"""Keeps glibc's allocator from handing the loop's read buffers back to the kernel after every read."""

from __future__ import annotations

import ctypes
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
TRIM_THRESHOLD_BYTES: Final = 2 << 20
MMAP_THRESHOLD_BYTES: Final = 512 << 10


def set_allocator() -> bool:
    """Sets both thresholds; whether the C library took them. False, and nothing else, where it has no ``mallopt``.

    The event loops read into 256 KiB buffers. Below 512 KiB those come from the heap instead of a mapping
    of their own, and with up to 2 MiB kept at its top they are no longer unmapped and faulted in again on
    each read, which costs several times the read itself. Either setting alone does not help. Costs at most
    2 MiB.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    took = [mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES), mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)]
    return all(took)
