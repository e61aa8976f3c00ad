"""The load: a number of keep-alive connections with mutual TLS, each asking anew as soon as it is answered.

Run as a process of its own, ``python -m tests.bench.load JSON``; prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from typing import Any

import uvloop

REQUEST = (
    b"GET /orders/42 HTTP/1.1\r\nhost: orders.bench.test\r\nuser-agent: bench/1\r\naccept: application/json\r\n"
    b"accept-encoding: identity\r\nx-tenant: shop-17\r\ncache-control: no-cache\r\n\r\n"
)


# As a service of a mesh asks: with a trace of its own for each call, so that no two heads are alike.
TRACED = REQUEST.replace(b"\r\n\r\n", b"\r\ntraceparent: 00-%032x-00f067aa0ba902b7-01\r\n\r\n")


class Caller(asyncio.Protocol):
    """One connection. ``pace_s`` is the time between two requests' starts; 0 asks at once."""

    def __init__(self, load: Load, pace_s: float, offset_s: float) -> None:
        self._load = load
        self._pace_s = pace_s
        self._offset_s = offset_s
        self._left = -1
        self._kept = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._next_s = self._loop.time() + self._offset_s
        self._loop.call_later(self._offset_s, self._ask)

    def _ask(self) -> None:
        if self._load.is_over or self._transport.is_closing():
            return
        self._began_s = self._next_s if self._pace_s else time.perf_counter()
        if self._pace_s:
            # Measured from when it ought to have been asked, so that a stall counts for all whom it delays.
            self._began_s = time.perf_counter() - (self._loop.time() - self._next_s)
        self._transport.write(self._load.next_request())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            data = self._kept + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._kept = data
                return
            self._kept = b""
            head = data[:end].lower()
            if not head.startswith(b"http/1.1 200"):
                self._load.fail(head.split(b"\r\n")[0].decode(errors="replace"))
            place = head.find(b"content-length:")
            if place < 0:
                self._load.fail("an answer without content-length")
                self._transport.close()
                return
            self._left = int(head[place + 15 :].split(b"\r", 1)[0])
            data = data[end + 4 :]
        self._left -= len(data)
        if self._left == 0:
            self._left = -1
            self._load.answered(time.perf_counter() - self._began_s)
            if not self._pace_s:
                self._ask()
                return
            self._next_s = max(self._next_s + self._pace_s, self._loop.time() - 1.0)
            self._loop.call_at(self._next_s, self._ask)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._load.is_over:
            self._load.fail(f"connection lost: {exc!r}")


class Load:
    """What all connections share: the count, the latencies, the failures."""

    def __init__(self, *, traced: bool) -> None:
        self._traced = traced
        self._trace = random.getrandbits(127)
        self.is_over = False
        self.latencies_s: list[float] = []
        self.failures: list[str] = []

    def next_request(self) -> bytes:
        if not self._traced:
            return REQUEST
        self._trace += 1
        return TRACED % self._trace

    def answered(self, latency_s: float) -> None:
        self.latencies_s.append(latency_s)

    def fail(self, why: str) -> None:
        if len(self.failures) < 10:
            self.failures.append(why)


def build_context(task: dict[str, Any]) -> ssl.SSLContext:
    """TLS 1.3 with the caller's SVID; the proxies are told apart by port, so the name is not checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(cafile=task["bundle"])
    context.load_cert_chain(task["svid"], task["key"])
    return context


async def run_load(task: dict[str, Any]) -> dict[str, Any]:
    """Plays one task: connections, seconds, rate (requests per second in all, 0 for as fast as possible), traced."""
    loop = asyncio.get_running_loop()
    load = Load(traced=task["traced"])
    context = build_context(task)
    count, rate = task["connections"], task["rate"]
    pace_s = count / rate if rate else 0.0
    transports = []
    for index in range(count):
        transport, _ = await loop.create_connection(
            lambda index=index: Caller(load, pace_s, pace_s * index / count if rate else 0.0),
            "127.0.0.1",
            task["port"],
            ssl=context,
        )
        transports.append(transport)
    await asyncio.sleep(task["warm_s"])
    print(json.dumps({"at": "begin"}), flush=True)
    load.latencies_s.clear()
    await asyncio.sleep(task["seconds"])
    latencies = sorted(load.latencies_s)
    load.is_over = True
    print(json.dumps({"at": "end"}), flush=True)
    for transport in transports:
        transport.abort()
    return {
        "requests": len(latencies),
        "failures": load.failures,
        "p50_us": _quantile_us(latencies, 0.50),
        "p99_us": _quantile_us(latencies, 0.99),
    }


async def run_connects(task: dict[str, Any]) -> dict[str, Any]:
    """New connections with a full handshake and one request each, one after the other."""
    context = build_context(task)
    print(json.dumps({"at": "begin"}), flush=True)
    for _ in range(task["connects"]):
        reader, writer = await asyncio.open_connection("127.0.0.1", task["port"], ssl=context)
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
    print(json.dumps({"at": "end"}), flush=True)
    return {"requests": task["connects"], "failures": []}


async def run_idle(task: dict[str, Any]) -> dict[str, Any]:
    """Opens ``idle`` connections, asks once on each, and holds them until standard input ends."""
    context = build_context(task)
    writers = []
    for _ in range(task["idle"]):
        reader, writer = await asyncio.open_connection("127.0.0.1", task["port"], ssl=context)
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        writers.append(writer)
    print(json.dumps({"at": "begin"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for writer in writers:
        writer.transport.abort()
    print(json.dumps({"at": "end"}), flush=True)
    return {"requests": len(writers), "failures": []}


def _quantile_us(ordered: list[float], part: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1e6, 1) if ordered else 0.0


KINDS = {"load": run_load, "connects": run_connects, "idle": run_idle}

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(uvloop.run(KINDS[given["kind"]](given))), flush=True)
