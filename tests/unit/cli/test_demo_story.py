"""The demo's steps, each with the fault planted that it has to notice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from sidecar.cli.demo_stage import WEB
from sidecar.cli.demo_story import Story
from sidecar.cli.demo_world import DemoError, Ran, Started, World
from tests.fakes.clock import FakeClock

STEPS = ["allow", "deny", "no certificate", "grant", "expire", "records", "verify", "tamper"]


def call_record(method: str, effect: str, reason: str, status: int) -> dict[str, Any]:
    return {
        "event": "call",
        "caller": {"id": WEB},
        "intent": {"method": method},
        "decision": {"effect": effect, "reason": reason},
        "outcome": {"status": status},
    }


RECORDS = [
    {"event": "start"},
    call_record("GET", "allow", "policy", 200),
    call_record("DELETE", "deny", "scope", 403),
    {"event": "handshake"},
    call_record("DELETE", "allow", "grant", 200),
    call_record("DELETE", "deny", "scope", 403),
]


class Product(World):
    """A world in which everything is as promised, but for what ``fault`` changes."""

    def __init__(self, directory: Path, records: list[dict[str, Any]] | None = None) -> None:
        self.clock = FakeClock()
        super().__init__(self.clock, directory)
        self.records = RECORDS if records is None else records
        self.granted_until_s = 0.0
        self.faults: dict[str, Callable[[Ran], Ran]] = {}
        self.lines: list[str] = []

    def run(
        self,
        argv: Sequence[str | Path],
        variables: Mapping[str, str] | None = None,
        *,
        shown: str | None = None,
    ) -> Ran:
        words = [str(word) for word in argv]
        line = shown or " ".join(words)
        self.lines.append(line)
        ran = self.answer(words, line)
        for mark, fault in self.faults.items():
            if mark in line:
                ran = fault(ran)
        return ran

    def answer(self, words: list[str], line: str) -> Ran:
        def ran(exit_code: int = 0, stdout: str = "") -> Ran:
            return Ran(line, exit_code, stdout, "")

        if "--no-certificate" in words:
            return ran(3, "no answer: certificate required\n")
        if "GET" in words:
            return ran(0, f'200\n{{"caller": "{WEB}"}}\n')
        if "explain" in words:
            return ran(3, "deny scope\n")
        if "DELETE" in words:
            open_now = self.clock.monotonic_s() < self.granted_until_s
            return ran(0, "200\n{}\n" if open_now else "403 scope\n{}\n")
        if "keygen" in words:
            Path(words[-1] + ".pub").write_text("oncall ...\n")
        if "grant" in words:
            self.granted_until_s = self.clock.monotonic_s() + 6
        if "tail" in words:
            audit = self.directory / "state" / "audit"
            audit.mkdir()
            text = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in self.records)
            (audit / "00000001.jsonl").write_text(text)
        if "verify" in words and "tampered" in line:
            return ran(3, "line 3 is not what line 4 follows\n")
        return ran()

    def start(
        self, name: str, argv: Sequence[str | Path], variables: Mapping[str, str] | None = None
    ) -> Started:
        if name == "sidecar":
            svid = self.directory / "state" / "issuer" / "svids" / "web"
            svid.mkdir(parents=True)
            (svid / "svid.pem").write_text("")
        return Started(name, " ".join(map(str, argv)), cast(Any, None), self.directory / f"{name}.log")

    def wait_for(self, what: str, holds: Callable[[], bool], started: Started | None = None) -> None:
        holds()

    def pause(self, seconds: float) -> None:
        self.clock.advance(seconds)


class Listener:
    """Hears the story."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def step(self, name: str, title: str) -> None:
        self.heard.append(name)

    def say(self, text: str) -> None:
        pass

    def ran(self, ran: Ran) -> None:
        pass

    def result(self, seen: str) -> None:
        pass


def with_exit(code: int) -> Callable[[Ran], Ran]:
    return lambda ran: Ran(ran.command, code, ran.stdout, "something went wrong\n")


def with_output(text: str) -> Callable[[Ran], Ran]:
    return lambda ran: Ran(ran.command, ran.exit_code, text, "")


def test_the_steps_are_told_in_order_when_all_is_as_promised(tmp_path: Path) -> None:
    world, listener = Product(tmp_path), Listener()
    story = Story(world, listener, world.clock)
    story.play()
    assert listener.heard == ["setup", *STEPS]
    assert [step.name for step in story.steps] == STEPS
    assert all(step.as_json()["ok"] and step.as_json()["commands"] for step in story.steps)


@pytest.mark.parametrize(
    ("step", "mark", "fault", "message"),
    [
        pytest.param("setup", "issuer init", with_exit(1), "expected exit code 0, got 1", id="issuer-fails"),
        pytest.param("setup", "keygen", with_exit(2), "something went wrong", id="keygen-fails"),
        pytest.param(
            "allow", "GET https", with_output("403 scope\n"), "expected the answer '200'", id="refused"
        ),
        pytest.param(
            "allow", "GET https", with_output("200\nnull\n"), "to know that", id="caller-not-passed-on"
        ),
        pytest.param(
            "deny", "DELETE https", with_output("200\n"), "expected the answer '403", id="let-through"
        ),
        pytest.param("deny", "DELETE https", with_output("403 rate\n"), "'403 scope'", id="another-reason"),
        pytest.param("deny", "explain", with_exit(0), "expected exit code 3, got 0", id="explain-disagrees"),
        pytest.param(
            "no certificate", "--no-cert", with_exit(0), "code 3, got 0", id="anonymous-let-through"
        ),
        pytest.param(
            "no certificate", "--no-cert", with_output("401\n"), "handshake", id="anonymous-got-http"
        ),
        pytest.param("grant", "break-glass grant", with_exit(3), "got 3", id="grant-refused"),
        pytest.param("grant", "break-glass list", with_exit(1), "got 1", id="list-fails"),
        pytest.param("records", "audit tail", with_exit(1), "got 1", id="tail-fails"),
        pytest.param("verify", "audit verify", with_exit(3), "got 3", id="log-does-not-verify"),
        pytest.param("tamper", "tampered --key", with_exit(0), "code 3, got 0", id="tampering-not-found"),
        pytest.param("tamper", "dd of=", with_exit(1), "got 1", id="nothing-changed"),
    ],
)
def test_a_step_fails_when_the_product_does(
    tmp_path: Path, step: str, mark: str, fault: Callable[[Ran], Ran], message: str
) -> None:
    world = Product(tmp_path)
    world.faults = {mark: fault}
    story = Story(world, Listener(), world.clock)
    with pytest.raises(DemoError, match=message):
        story.play()
    assert (story.steps[-1].name if story.steps else "setup") == step
    assert not any(each.as_json()["ok"] for each in story.steps[-1:])


def test_a_grant_that_opens_nothing_is_noticed(tmp_path: Path) -> None:
    world = Product(tmp_path)
    world.faults = {"break-glass grant": lambda ran: setattr(world, "granted_until_s", 0.0) or ran}  # type: ignore[func-returns-value]
    story = Story(world, Listener(), world.clock)
    with pytest.raises(DemoError, match="expected the answer '200'"):
        story.play()
    assert story.steps[-1].name == "grant"


def test_a_grant_that_outlives_its_end_is_noticed(tmp_path: Path) -> None:
    world = Product(tmp_path)
    world.faults = {"break-glass list": lambda ran: setattr(world, "granted_until_s", 1e9) or ran}  # type: ignore[func-returns-value]
    story = Story(world, Listener(), world.clock)
    with pytest.raises(DemoError, match="expected the answer '403 scope'"):
        story.play()
    assert story.steps[-1].name == "expire"


@pytest.mark.parametrize(
    ("records", "message"),
    [
        pytest.param(RECORDS[:-1], "to hold the calls", id="a-call-is-missing"),
        pytest.param([*RECORDS, RECORDS[1]], "to hold the calls", id="a-call-too-many"),
        pytest.param(
            [r for r in RECORDS if r["event"] != "handshake"], "refused handshake", id="no-handshake"
        ),
        pytest.param([], "to hold the calls", id="empty"),
    ],
)
def test_records_that_do_not_tell_what_happened_are_noticed(
    tmp_path: Path, records: list[dict[str, Any]], message: str
) -> None:
    world = Product(tmp_path, records)
    story = Story(world, Listener(), world.clock)
    with pytest.raises(DemoError, match=message):
        story.play()
    assert story.steps[-1].name == "records"


def test_the_byte_that_is_changed_makes_a_refusal_look_allowed(tmp_path: Path) -> None:
    world = Product(tmp_path)
    Story(world, Listener(), world.clock).play()
    line = next(line for line in world.lines if line.startswith("printf"))
    offset = int(line.split("seek=")[1].split()[0])
    log = (tmp_path / "state" / "audit" / "00000001.jsonl").read_bytes()
    forged = log[:offset] + b"2" + log[offset + 1 :]
    changed = [json.loads(line) for line in forged.splitlines()]
    assert changed[2] == call_record("DELETE", "deny", "scope", 203)


def test_the_service_gets_a_port_where_the_directory_is_too_deep_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    started: dict[str, Mapping[str, str] | None] = {}

    class Deep(Product):
        def start(
            self, name: str, argv: Sequence[str | Path], variables: Mapping[str, str] | None = None
        ) -> Started:
            started[name] = variables
            return super().start(name, argv, variables)

    world = Deep(deep)
    Story(world, Listener(), world.clock).play()
    assert (started["sidecar"] or {})["SIDECAR_UPSTREAM"].startswith("http://127.0.0.1:")


def test_the_curl_line_switches_nothing_off(tmp_path: Path) -> None:
    world = Product(tmp_path)
    story = Story(world, Listener(), world.clock)
    story.play()
    words = story.stage.curl_line().replace("\\\n", " ").split()
    assert words[0] == "curl"
    assert not {"-k", "--insecure"} & set(words)
    assert words[-1].startswith("https://localhost:")
