"""What the demo shows: eight steps, each a few commands, what came of them, and what had to come of them.

The steps run what a reader would run, in processes of their own, and each one raises
:class:`~sidecar.cli.demo_world.DemoError` where the product does not keep its promise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sidecar.cli.demo_stage import ORDERS, TRUST_DOMAIN, WEB, Stage, expect, expect_answer
from sidecar.cli.demo_world import DemoError, Ran, World, shell_line
from sidecar.clock import Clock

# Long enough for three commands on a busy machine, short enough to wait for its end.
GRANT_TTL_S = 6
AFTER_EXPIRY_S = 0.2
RECORDS_SHOWN = 12


class Narrator(Protocol):
    """Who tells the story as it happens."""

    def step(self, name: str, title: str) -> None:
        """A step begins."""
        ...

    def say(self, text: str) -> None:
        """A remark, or a command that goes on."""
        ...

    def ran(self, ran: Ran) -> None:
        """A command has ended."""
        ...

    def result(self, seen: str) -> None:
        """What the step had to show has been seen."""
        ...


@dataclass(slots=True)
class Step:
    """One step as it went; ``seen`` stays empty while it has not shown what it had to."""

    name: str
    title: str
    commands: list[Ran] = field(default_factory=list)
    seen: str = ""

    def as_json(self) -> dict[str, Any]:
        """The step's member in the answer to ``--json``."""
        commands = [
            {"command": ran.command, "exit_code": ran.exit_code, "stdout": ran.stdout, "stderr": ran.stderr}
            for ran in self.commands
        ]
        ok = bool(self.seen)
        return {"name": self.name, "title": self.title, "ok": ok, "seen": self.seen, "commands": commands}


class Story:
    """Sets the stage in a world and plays the steps on it, in order. ``steps`` holds those begun so far."""

    def __init__(self, world: World, narrator: Narrator, clock: Clock) -> None:
        self._world = world
        self._narrator = narrator
        self._clock = clock
        self._grant_ends_s = 0.0
        self.steps: list[Step] = []
        self.stage = Stage(world, self._tell, narrator.say)

    def play(self) -> None:
        """All of it. Raises DemoError at the first thing that is not as promised."""
        self._narrator.step("setup", f"trust domain {TRUST_DOMAIN}, the orders service, a sidecar in front")
        self.stage.set_up()
        for name, title, show in self._scenes():
            step = Step(name, title)
            self.steps.append(step)
            self._narrator.step(name, title)
            step.seen = show()
            self._narrator.result(step.seen)

    def _scenes(self) -> tuple[tuple[str, str, Callable[[], str]], ...]:
        return (
            ("allow", "web reads an order, as the policy permits", self._allow),
            ("deny", "web deletes an order, which nobody may", self._deny),
            ("no certificate", "somebody without an identity calls", self._no_certificate),
            ("grant", f"an emergency: a signed grant of {GRANT_TTL_S} seconds opens DELETE", self._grant),
            ("expire", "the grant ends by itself", self._expire),
            ("records", "what was written down of all this", self._records),
            ("verify", "the log proves itself", self._verify),
            ("tamper", "a copy with one byte changed does not", self._tamper),
        )

    def _tell(self, ran: Ran) -> None:
        if self.steps:
            self.steps[-1].commands.append(ran)
        self._narrator.ran(ran)

    def _allow(self) -> str:
        ran = self.stage.call("GET", "/orders/42")
        expect_answer(ran, "200")
        if WEB not in ran.stdout:
            raise DemoError(f"expected the service to know that {WEB} called, got {ran.stdout!r}")
        return "200, and the service was told who called"

    def _deny(self) -> str:
        expect_answer(self.stage.call("DELETE", "/orders/42"), "403 scope")
        policy = ("--policy", self.stage.policy)
        expect(3, self.stage.sidecar("explain", "--as", WEB, *policy, "DELETE", "/orders/42"))
        return "403 with its reason; the service never saw the call"

    def _no_certificate(self) -> str:
        ran = self.stage.call("GET", "/orders/42", "--no-certificate")
        expect(3, ran)
        if not ran.stdout.startswith("no answer: "):
            raise DemoError(f"expected a refused handshake, got {ran.stdout!r}")
        return "refused in the TLS handshake, before there was any HTTP"

    def _grant(self) -> str:
        stage = self.stage
        words: tuple[str, ...] = ("--to", WEB, "--allow", "DELETE /orders/*", "--for", f"{GRANT_TTL_S}s")
        words += ("--reason", "INC-4711 stuck order", "--key", str(stage.key), "--send")
        expect(0, stage.sidecar("break-glass", "grant", *words, operator=True))
        self._grant_ends_s = self._clock.monotonic_s() + GRANT_TTL_S
        expect_answer(stage.call("DELETE", "/orders/42"), "200")
        expect(0, stage.sidecar("break-glass", "list", operator=True))
        return "200: what the grant names, for whom it names, as long as it says"

    def _expire(self) -> str:
        wait_s = max(0.0, self._grant_ends_s + AFTER_EXPIRY_S - self._clock.monotonic_s())
        self._narrator.say(f"(waiting {wait_s:.1f} s for the end of the grant)")
        self._world.pause(wait_s)
        expect_answer(self.stage.call("DELETE", "/orders/42"), "403 scope")
        return "403 again; nobody had to close anything"

    def _records(self) -> str:
        expect(0, self.stage.sidecar("audit", "tail", "-n", str(RECORDS_SHOWN), operator=True))
        records = [json.loads(line) for _, _, line in self._lines()]
        calls = [record for record in records if record["event"] == "call"]
        seen = [
            (
                call["caller"]["id"],
                call["intent"]["method"],
                call["decision"]["effect"],
                call["decision"]["reason"],
            )
            for call in calls
        ]
        wanted = [
            (WEB, "GET", "allow", "policy"),
            (WEB, "DELETE", "deny", "scope"),
            (WEB, "DELETE", "allow", "grant"),
            (WEB, "DELETE", "deny", "scope"),
        ]
        if seen != wanted:
            raise DemoError(f"expected the log to hold the calls {wanted}, got {seen}")
        if not any(record["event"] == "handshake" for record in records):
            raise DemoError("expected the log to hold the refused handshake, got none")
        return f"four calls of {WEB} to {ORDERS}, the refused handshake, the life of the grant"

    def _verify(self) -> str:
        stage = self.stage
        expect(0, stage.sidecar("audit", "verify", stage.audit, "--key", stage.audit_key))
        return "every line follows from the one before, and the checkpoints are signed"

    def _tamper(self) -> str:
        stage = self.stage
        copy = self._world.directory / "tampered"
        expect(0, stage.run(["cp", "-r", stage.audit, copy]))
        name, offset = self._status_of_the_refusal()
        dd = ["dd", f"of={copy / name}", "bs=1", f"seek={offset}", "conv=notrunc", "status=none"]
        script = f"printf 2 | {shell_line(dd)}"
        expect(0, stage.run(["sh", "-c", script], shown=script))
        expect(3, stage.sidecar("audit", "verify", copy, "--key", stage.audit_key))
        return "a refusal dressed up as a success (403 made 203) is found, and its line is named"

    def _lines(self) -> Iterator[tuple[Path, int, bytes]]:
        """The log's lines, each with its file and the offset at which it begins."""
        for path in sorted(self.stage.audit.glob("*.jsonl")):
            offset = 0
            for line in path.read_bytes().splitlines(keepends=True):
                yield path, offset, line
                offset += len(line)

    def _status_of_the_refusal(self) -> tuple[str, int]:
        """File and offset of the 4 in the first refusal's 403: what a forger would like to change."""
        mark = b'"status":403'
        for path, offset, line in self._lines():
            if b'"effect":"deny"' in line and mark in line:
                return path.name, offset + line.index(mark) + len(b'"status":')
        raise DemoError("expected the log to hold a refused call, got none")
