from __future__ import annotations

import asyncio
import socket

import pytest

from sidecar.app.bypass import find_bypass, local_addresses
from sidecar.settings import Upstream
from tests.fakes.loops import both_loops, run_on

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 203.0.113.7
        /32 host LOCAL
     |-- 203.0.113.255
        /32 link BROADCAST
     |-- 127.0.0.1
        /32 host LOCAL
Local:
     |-- 203.0.113.7
        /32 host LOCAL
     |-- 169.254.1.1
        /32 host LOCAL
"""
IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000005 02 40 00 80     eth0
fe800000000000000000000000000001 02 40 20 80     eth0
"""


def test_own_addresses_are_those_that_others_can_route_to(tmp_path):
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    (tmp_path / "if_inet6").write_text(IF_INET6)
    assert local_addresses(tmp_path) == ["203.0.113.7", "2001:db8::5"]


def test_where_the_kernel_does_not_list_them_there_are_none(tmp_path):
    assert local_addresses(tmp_path) == []


@both_loops
def test_an_address_that_accepts_is_found_and_one_that_does_not_is_not(factory):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = run_on(factory, find_bypass(Upstream("http", "127.0.0.1", port), ["127.0.0.1", "127.0.0.2"]))
    assert found == ["127.0.0.1"]


@pytest.mark.parametrize("upstream", [Upstream("unix", path="/run/x.sock"), Upstream("http", "192.0.2.1", 1)])
def test_nothing_is_tried_where_it_would_say_nothing(upstream):
    assert asyncio.run(find_bypass(upstream, ["127.0.0.1"])) == []
