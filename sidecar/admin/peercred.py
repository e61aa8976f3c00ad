"""Who is at the other end of a Unix socket, as the kernel recorded it when the connection was made."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import Protocol

_UCRED = struct.Struct("3i")  # pid, uid, gid of socket(7), SO_PEERCRED

# SO_PEERGROUPS of socket(7) has no name in the standard library, and another number on a few machines; there
# only the primary group counts. So it does for lists longer than the 1024 bytes Python takes (256 groups).
_SO_PEERGROUPS = 59
_GENERIC_MACHINES = frozenset({"x86_64", "aarch64", "i686", "armv7l", "ppc64le", "riscv64", "s390x"})
_LONGEST_GROUPS_BYTES = 1024


class PeerSocket(Protocol):
    """What is needed of a connected socket; asyncio's and uvloop's stand-ins have it too."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class PeerCred:
    """A process that connected. ``groups`` has its primary group first, then its supplementary ones."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def read_peercred(link: PeerSocket) -> PeerCred:
    """The credentials of the connected peer. Raises OSError where the kernel cannot tell: refuse such a peer.

    Supplementary groups come from the kernel as well (SO_PEERGROUPS), not from ``/proc/PID``, where the
    process may be another one by the time of reading.
    """
    pid, uid, gid = _UCRED.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return PeerCred(pid, uid, gid, (gid, *_supplementary_groups(link)))


def is_operator(peer: PeerCred, own_uid: int, admin_group: int | None) -> bool:
    """Whether ``peer`` may call: root, the sidecar's own user, and the admin group if there is one."""
    return peer.uid in (0, own_uid) or (admin_group is not None and admin_group in (peer.gid, *peer.groups))


def _supplementary_groups(link: PeerSocket) -> tuple[int, ...]:
    if os.uname().machine not in _GENERIC_MACHINES:
        return ()
    try:
        data = link.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _LONGEST_GROUPS_BYTES)
    except OSError:
        return ()
    return struct.unpack(f"{len(data) // 4}I", data)
