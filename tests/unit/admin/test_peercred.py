from __future__ import annotations

import os
import socket

import pytest

from sidecar.admin.peercred import PeerCred, is_operator, read_peercred

OWN, GROUP = 1000, 500


@pytest.mark.parametrize(
    ("peer", "group", "allowed"),
    [
        (PeerCred(1, 1001, 1001), None, False),
        (PeerCred(1, 1001, OWN), None, False),  # the own gid is not the own uid
        (PeerCred(1, 1001, 0), None, False),  # neither is root's group root
        (PeerCred(1, 1001, 0, (0, 500)), None, False),
        (PeerCred(1, 1001, 501, (501, 502)), GROUP, False),
        (PeerCred(1, GROUP, 501), GROUP, False),  # a uid that is the group's number
        (PeerCred(1, 65534, 65534), GROUP, False),
        (PeerCred(1, 4294967295, 4294967295), GROUP, False),
        (PeerCred(1, 0, 501), None, True),
        (PeerCred(1, OWN, 501), None, True),
        (PeerCred(1, 1001, GROUP), GROUP, True),
        (PeerCred(1, 1001, 501, (501, GROUP)), GROUP, True),
        (PeerCred(1, 1001, 0), 0, True),
    ],
)
def test_who_may_call(peer, group, allowed):
    assert is_operator(peer, OWN, group) is allowed


def test_the_kernel_names_this_very_process():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = read_peercred(ours)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert peer.groups[0] == os.getegid() and set(os.getgroups()) <= set(peer.groups)


def test_what_the_kernel_cannot_tell_is_an_error():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as link:
        link.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            read_peercred(link)


class PrimaryOnly:
    """A socket of a kernel without SO_PEERGROUPS."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        if option != socket.SO_PEERCRED:
            raise OSError(92, "Protocol not available")
        return (7).to_bytes(4, "little") + (8).to_bytes(4, "little") + (9).to_bytes(4, "little")


def test_without_supplementary_groups_the_primary_one_counts():
    assert read_peercred(PrimaryOnly()) == PeerCred(7, 8, 9, (9,))


def test_on_a_machine_with_another_number_it_is_not_asked(monkeypatch):
    ours, theirs = socket.socketpair()
    names = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*names[:4], "sparc64")))
    with ours, theirs:
        assert read_peercred(ours).groups == (os.getegid(),)
