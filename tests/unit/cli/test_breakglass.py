from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import click
import pytest

from sidecar.breakglass.grant import Grant, Review, Revocation
from sidecar.breakglass.keys import can_encrypt
from sidecar.breakglass.order import decode_order
from sidecar.breakglass.signers import load_signers
from sidecar.breakglass.verify import GrantRules, verify_grant, verify_single
from sidecar.cli import breakglass, breakglass_file, breakglass_grant, breakglass_key, main
from sidecar.cli.breakglass_view import moment
from sidecar.errors import ConfigurationError, OrderRefused, UnavailableError
from tests.fakes.clock import FakeClock
from tests.fakes.orders import ORDERS, OTHER, make_grant, make_revocation, sign_order

CLOCK = FakeClock()
ID = "0123456789abcdef0123456789abcdef"
TO = ("--to", "spiffe://demo.test/web")
OPENS = ("--allow", "DELETE /orders/*")
WHY = ("--reason", "INC-4711 stuck order")
FOR = ("--for", "15m")
HERE = ("--audience", str(ORDERS))
needs_bcrypt = pytest.mark.skipif(not can_encrypt(), reason="needs bcrypt, which the core does not depend on")


class Running:
    """Stands where the running sidecar is: answers by path, or fails as it would."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {
            "/v1/status": {"spiffe_id": str(ORDERS)},
            "/v1/grants": [],
            "/v1/orders": {
                "result": "accepted",
                "kind": "grant",
                "grant": ID,
                "subject": "spiffe://demo.test/web",
            },
        }
        self.orders: list[bytes] = []

    def __call__(self, method: str, path: str, body: bytes | None = None) -> object:
        if body is not None:
            self.orders.append(body)
        answer = self.answers[path]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def running(monkeypatch, tmp_path) -> Running:
    client = Running()
    for module in (breakglass, breakglass_file, breakglass_grant):
        monkeypatch.setattr(module, "admin_call", client)
    monkeypatch.setattr(breakglass, "CLOCK", CLOCK)
    monkeypatch.chdir(tmp_path)
    return client


@pytest.fixture
def people(tmp_path, capsys) -> Path:
    """Keys of oncall and lead, and a signers file."""
    for name in ("oncall", "lead"):
        assert run("keygen", name) == 0
    (tmp_path / "signers").write_text(
        (tmp_path / "oncall.pub").read_text() + (tmp_path / "lead.pub").read_text()
    )
    capsys.readouterr()
    return tmp_path


def run(*arguments: str | Path) -> int:
    return main.run(["break-glass", *map(str, arguments)])


def grant(*more: str, key: str = "oncall") -> int:
    return run("grant", *TO, *OPENS, *FOR, *WHY, "--key", key, *more)


def on_terminal(monkeypatch: pytest.MonkeyPatch, *answers: object) -> list[str]:
    """Somebody sits there and gives these answers; what was asked is in the list."""
    asked: list[str] = []
    left = iter(answers)

    def prompt(question: str, **options: object) -> object:
        asked.append(question)
        return next(left)

    def confirm(question: str, **options: object) -> bool:
        asked.append(question)
        if not next(left):
            raise click.Abort
        return True

    for module in (breakglass.sys, breakglass_key.sys):
        monkeypatch.setattr(module, "stdin", Terminal())
    monkeypatch.setattr(click, "prompt", prompt)
    monkeypatch.setattr(click, "confirm", confirm)
    return asked


class Terminal:
    def isatty(self) -> bool:
        return True


def test_keygen_makes_a_pair_and_says_that_it_is_not_encrypted(tmp_path, capsys):
    assert run("keygen", tmp_path / "oncall") == 0
    shown = capsys.readouterr().out
    assert "NOT encrypted" in shown and "SHA256:" in shown
    assert load_signers(tmp_path / "oncall.pub").names == ("oncall",)
    assert (tmp_path / "oncall").stat().st_mode & 0o777 == 0o600
    assert run("keygen", tmp_path / "oncall") == 2
    assert "exists" in capsys.readouterr().err


def test_keygen_names_the_person(tmp_path, capsys):
    assert run("keygen", "id_bg", "--signer", "jo@example.org") == 0
    assert load_signers(tmp_path / "id_bg.pub").names == ("jo@example.org",)
    assert run("keygen", "on call") == 2
    assert "no name of a signer" in capsys.readouterr().err
    assert not (tmp_path / "on call").exists()


@needs_bcrypt
def test_keygen_encrypts_with_a_passphrase_and_grant_takes_it(tmp_path, capsys):
    secret = tmp_path / "secret"
    secret.write_text("correct horse\nnot this line\n")
    secret.chmod(0o600)
    assert run("keygen", "oncall", "--passphrase-file", "secret") == 0
    assert ", encrypted" in capsys.readouterr().out
    assert grant() == 2
    assert "is encrypted; give --passphrase-file" in capsys.readouterr().err
    assert grant("--passphrase-file", "secret") == 0
    secret.write_text("battery staple\n")
    assert grant("--passphrase-file", "secret") == 2
    assert "passphrase is wrong" in capsys.readouterr().err


@needs_bcrypt
def test_on_a_terminal_the_passphrase_is_asked_for(monkeypatch, capsys):
    assert on_terminal(monkeypatch, "correct horse") == []
    assert run("keygen", "oncall") == 0
    assert ", encrypted" in capsys.readouterr().out
    asked = on_terminal(monkeypatch, "correct horse")
    assert grant() == 0 and asked == ["passphrase of oncall"]
    on_terminal(monkeypatch, "")
    assert run("keygen", "plain") == 0
    assert "NOT encrypted: no passphrase was given" in capsys.readouterr().out


def test_a_passphrase_file_that_says_nothing_or_is_open_to_others_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(breakglass, "can_encrypt", lambda: True)
    secret = tmp_path / "secret"
    for text, mode, message in (
        ("\n", 0o600, "empty line"),
        ("", 0o600, "empty line"),
        ("x\n", 0o644, "chmod"),
    ):
        secret.write_text(text)
        secret.chmod(mode)
        assert run("keygen", "oncall", "--passphrase-file", "secret") == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "oncall").exists()


def test_without_the_library_a_wish_for_encryption_is_no_plain_key(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(breakglass, "can_encrypt", lambda: False)
    asked = on_terminal(monkeypatch)
    assert run("keygen", "oncall") == 0
    assert "NOT encrypted: the package bcrypt is not installed" in capsys.readouterr().out and asked == []


def test_a_grant_is_written_under_its_id(people, capsys):
    assert grant(*HERE) == 0
    (path,) = people.glob("*.bg")
    order = decode_order(path.read_bytes())
    made = order.body
    assert isinstance(made, Grant) and path.stem == made.id
    assert capsys.readouterr().out == (
        f"written to {made.id}.bg\ngrant {made.id} ends 2026-11-24T12:15:00Z (in 15 min)\n"
    )
    wanted = make_grant(CLOCK, id=made.id)
    assert made == wanted
    signers = load_signers(people / "signers")
    assert verify_grant(order, signers, ORDERS, CLOCK.wall_s(), GrantRules(3600, 1)) == ("oncall",)


def test_ids_are_never_the_same(people):
    for _ in range(3):
        assert grant(*HERE) == 0
    assert len(list(people.glob("*.bg"))) == 3


def test_all_options_of_a_grant(people, capsys):
    options = (
        "--allow",
        "GET,HEAD /a/**",
        "--max-uses",
        "3",
        "--out",
        "grant.bg",
        "--signer",
        "jo",
        "--json",
    )
    assert grant(*HERE, *options) == 0
    shown = json.loads(capsys.readouterr().out)
    made = decode_order((people / "grant.bg").read_bytes()).body
    assert isinstance(made, Grant)
    assert [str(each) for each in made.allow] == ["DELETE /orders/*", "GET,HEAD /a/**"]
    assert made.max_uses == 3 and made.requester == "jo"
    assert shown == {"grant": made.id, "path": "grant.bg", "not_after": "2026-11-24T12:15:00Z", "sent": None}
    assert grant(*HERE, "--out", "grant.bg") == 2
    assert "exists" in capsys.readouterr().err


def test_a_wide_grant_and_one_for_several(people):
    assert grant("--wide", "demo.test", "--out", "wide.bg") == 0
    assert grant(*HERE, "--audience", str(OTHER), "--out", "two.bg") == 0
    wide, two = (decode_order((people / name).read_bytes()).body for name in ("wide.bg", "two.bg"))
    assert isinstance(wide, Grant) and isinstance(two, Grant)
    assert (wide.wide, wide.audience) == ("demo.test", ())
    assert (two.wide, two.audience) == (None, (ORDERS, OTHER))


def test_without_an_audience_the_sidecar_that_runs_here_is_asked(people, running, capsys):
    running.answers["/v1/status"] = {"spiffe_id": str(OTHER)}
    assert grant("--out", "grant.bg") == 0
    made = decode_order((people / "grant.bg").read_bytes()).body
    assert isinstance(made, Grant) and made.audience == (OTHER,)
    for answer, code, message in (
        (UnavailableError("no sidecar answers"), 1, "no --audience, and no sidecar answers"),
        (ConfigurationError("SIDECAR_ADMIN: odd"), 2, "SIDECAR_ADMIN: odd"),
        ({}, 1, "does not say who it is"),
        ({"spiffe_id": None}, 1, "does not say who it is"),
        ([], 1, "does not say who it is"),
        ({"spiffe_id": "spiffe://Demo.test/x"}, 3, "other characters"),
    ):
        running.answers["/v1/status"] = answer
        assert grant("--out", "other.bg") == code
        assert message in capsys.readouterr().err
    assert not (people / "other.bg").exists()


USAGE = [
    (("--to", "spiffe://demo.test"), "needs a path"),
    (("--to", "web"), "is not a SPIFFE ID"),
    (("--allow", "delete /orders/*"), "is no method"),
    (("--allow", "DELETE /orders*"), "stands for a whole segment"),
    (("--allow", "DELETE"), "write 'METHOD[,METHOD] PATH'"),
    (("--for", "15"), "is not a duration"),
    (("--for", "0s"), "out of range"),
    (("--for", "5h"), "out of range"),
    (("--for", "1500ms"), "whole seconds"),
    (("--for", "forever"), "is not a duration"),
    (("--reason", ""), "one line"),
    (("--reason", "two\nlines"), "one line"),
    (("--reason", "x" * 1001), "one line"),
    (("--audience", "demo.test"), "is not a SPIFFE ID"),
    (("--wide", "demo.test"), "exclude each other"),
    (("--audience", str(OTHER), "--max-uses", "1"), "exactly one sidecar"),
    (("--max-uses", "0"), "not in the range"),
    (("--max-uses", "many"), "not a valid integer"),
    (("--key", "nobody"), "No such file"),
    (("--signer", "on call"), "no name of a signer"),
    (("--audience", str(ORDERS)), "twice"),
    (("--allow", "GET /a") * 64, "at most 64"),
    (("--allow", f"GET /{'a' * 300}") * 60, "at most 16384 bytes"),
]


@pytest.mark.parametrize(("options", "message"), USAGE)
def test_what_no_sidecar_would_take_is_not_signed(options, message, people, capsys):
    assert grant(*HERE, *options) == 2
    assert message in capsys.readouterr().err
    assert list(people.glob("*.bg")) == []


@pytest.mark.parametrize("missing", ["--to", "--allow", "--for", "--reason", "--key"])
def test_nothing_is_left_to_a_default(missing, people, capsys):
    options = {"--to": TO, "--allow": OPENS, "--for": FOR, "--reason": WHY, "--key": ("--key", "oncall")}
    words = [word for name, pair in options.items() if name != missing for word in pair]
    assert run("grant", *words, *HERE) == 2
    assert missing in capsys.readouterr().err


def test_max_uses_and_wide_exclude_each_other(people, capsys):
    assert grant("--wide", "demo.test", "--max-uses", "1") == 2
    assert "exactly one sidecar" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_read_is_not_used(mode, people, capsys):
    (people / "oncall").chmod(mode)
    assert grant(*HERE) == 2
    assert "chmod it to 0600" in capsys.readouterr().err


def test_the_person_is_never_guessed(people, capsys):
    (people / "oncall.pub").unlink()
    assert grant(*HERE) == 2
    assert "give --signer NAME" in capsys.readouterr().err
    assert grant(*HERE, "--signer", "oncall") == 0


def test_send_hands_the_exact_bytes_over(people, running, capsys):
    assert grant("--send", "--out", "grant.bg") == 0
    assert running.orders == [(people / "grant.bg").read_bytes()]
    assert "the sidecar has the grant" in capsys.readouterr().out
    assert run("send", "grant.bg") == 0
    running.answers["/v1/orders"] = {"result": "known", "kind": "grant", "grant": ID, "subject": "x\x1b[2J"}
    assert run("send", "grant.bg") == 0
    assert running.orders[1:] == running.orders[:1] * 2
    shown = capsys.readouterr().out
    assert "already: nothing has changed" in shown and "\x1b" not in shown
    assert run("send", "grant.bg", "--json") == 0
    assert json.loads(capsys.readouterr().out)["result"] == "known"


def test_send_alone_leaves_no_file(people, running):
    assert grant("--send") == 0
    assert len(running.orders) == 1 and list(people.glob("*.bg")) == []


def test_a_refused_order_exits_three_with_its_code(people, running, capsys):
    running.answers["/v1/orders"] = OrderRefused("approvals", "the grant has 1 of the 2 signatures")
    assert grant("--send", "--out", "grant.bg") == 3
    assert capsys.readouterr().err == "sidecar: refused, approvals: the grant has 1 of the 2 signatures\n"
    assert run("send", "grant.bg") == 3
    assert run("revoke", ID, "--key", "lead") == 3
    assert run("review", ID, "--note", "x", "--key", "lead") == 3
    running.answers["/v1/orders"] = UnavailableError("no sidecar answers")
    assert run("send", "grant.bg") == 1


def test_send_reads_no_more_than_an_order_has(people, running, capsys):
    (people / "big").write_bytes(bytes(16_385))
    assert run("send", "big") == 3
    assert "more than 16384 bytes" in capsys.readouterr().err and running.orders == []
    (people / "fits").write_bytes(bytes(16_384))
    assert run("send", "fits") == 0  # what it is worth, the sidecar judges
    assert run("send", "none") == 1
    assert "No such file" in capsys.readouterr().err


def test_send_takes_a_pipe(people, running):
    data = sign_order(make_grant(CLOCK), "oncall")
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    try:
        assert run("send", f"/dev/fd/{reading}") == 0
    finally:
        os.close(reading)
    assert running.orders == [data]


def test_bg_04_who_approves_sees_everything_that_is_signed(people, capsys):
    assert grant(*HERE, "--out", "grant.bg", "--max-uses", "3") == 0
    before = decode_order((people / "grant.bg").read_bytes())
    capsys.readouterr()
    assert run("approve", "grant.bg", "--key", "lead") == 0
    shown = capsys.readouterr().out
    after = decode_order((people / "grant.bg").read_bytes())
    made = after.body
    assert isinstance(made, Grant)
    for member in (
        made.id, "spiffe://demo.test/web", str(ORDERS), "DELETE /orders/*", "INC-4711 stuck order", "oncall",
        "2026-11-24T12:00:00Z", "2026-11-24T12:15:00Z (in 15 min)", "max_uses", "SHA256:",
    ):  # fmt: skip
        assert member in shown
    assert after.payload == before.payload and after.signatures[:1] == before.signatures
    signers = load_signers(people / "signers")
    assert verify_grant(after, signers, ORDERS, CLOCK.wall_s(), GrantRules(3600, 2)) == ("oncall", "lead")


def test_an_approval_can_go_into_a_new_file(people):
    assert grant(*HERE, "--out", "grant.bg") == 0
    before = (people / "grant.bg").read_bytes()
    assert run("approve", "grant.bg", "--key", "lead", "--out", "both.bg") == 0
    assert (people / "grant.bg").read_bytes() == before
    assert len(decode_order((people / "both.bg").read_bytes()).signatures) == 2


def test_bg_03_the_requester_cannot_approve(people, capsys):
    assert grant(*HERE, "--out", "grant.bg") == 0
    before = (people / "grant.bg").read_bytes()
    assert run("approve", "grant.bg", "--key", "oncall") == 3
    assert "somebody else must approve" in capsys.readouterr().err
    assert run("approve", "grant.bg", "--key", "oncall", "--signer", "other") == 3
    assert "this key has signed" in capsys.readouterr().err
    assert run("approve", "grant.bg", "--key", "lead", "--signer", "oncall") == 3
    assert (people / "grant.bg").read_bytes() == before


def test_bg_01_nobody_approves_twice(people, capsys):
    assert grant(*HERE, "--out", "grant.bg") == 0
    assert run("approve", "grant.bg", "--key", "lead") == 0
    assert run("approve", "grant.bg", "--key", "lead") == 3
    assert "this key has signed" in capsys.readouterr().err


def test_what_ought_not_to_be_approved_is_not(people, monkeypatch, capsys):
    assert grant(*HERE, "--out", "grant.bg") == 0
    good = (people / "grant.bg").read_bytes()
    forged = bytearray(good)
    forged[-1] ^= 1
    (people / "forged.bg").write_bytes(forged)
    assert run("approve", "forged.bg", "--key", "lead") == 3
    assert "does not fit" in capsys.readouterr().err
    (people / "revocation").write_bytes(sign_order(make_revocation(CLOCK, ID), "oncall"))
    assert run("approve", "revocation", "--key", "lead") == 3
    assert "is no grant" in capsys.readouterr().err
    (people / "noise").write_bytes(b"noise")
    assert run("approve", "noise", "--key", "lead") == 3
    later = FakeClock()
    later.advance(900)
    monkeypatch.setattr(breakglass, "CLOCK", later)
    assert run("approve", "grant.bg", "--key", "lead") == 3
    assert "has ended" in capsys.readouterr().err
    assert (people / "grant.bg").read_bytes() == good and (people / "forged.bg").read_bytes() == forged


def test_eight_signatures_are_the_most(people, capsys):
    names = ["oncall", *(f"p{number}" for number in range(7))]
    (people / "full.bg").write_bytes(sign_order(make_grant(CLOCK), *names))
    assert run("approve", "full.bg", "--key", "lead") == 3
    assert "8 signatures, which is the most" in capsys.readouterr().err


def test_on_a_terminal_an_approval_is_asked_for(people, monkeypatch):
    assert grant(*HERE, "--out", "grant.bg") == 0
    before = (people / "grant.bg").read_bytes()
    asked = on_terminal(monkeypatch, False, True)
    assert run("approve", "grant.bg", "--key", "lead") == 130
    assert (people / "grant.bg").read_bytes() == before
    assert run("approve", "grant.bg", "--key", "lead") == 0
    assert asked == ["sign this as lead?"] * 2
    assert run("approve", "grant.bg", "--key", "lead", "--yes") == 3 and len(asked) == 2


def test_a_pipe_cannot_be_approved_in_its_place(people, capsys):
    data = sign_order(make_grant(CLOCK), "somebody")
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    try:
        assert run("approve", f"/dev/fd/{reading}", "--key", "lead") == 2
    finally:
        os.close(reading)
    assert "give --out" in capsys.readouterr().err


HELD = {
    "kind": "grant",
    "grant": ID,
    "state": "active",
    "subject": "spiffe://demo.test/web",
    "audience": [str(ORDERS)],
    "wide": None,
    "allow": [{"methods": ["DELETE"], "path": "/orders/*"}, {"methods": ["GET", "HEAD"], "path": "/a"}],
    "reason": "odd \x1b[2J reason",
    "requester": "oncall",
    "not_after": "2026-11-24T12:15:00Z",
    "max_uses": 3,
    "uses": 1,
    "revoked": None,
    "review": "due",
    "reviews": [],
}


def test_list_shows_each_grant(running, capsys):
    running.answers["/v1/grants"] = [HELD, {**HELD, "max_uses": None, "uses": 0, "state": "ended"}]
    assert run("list") == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["grant", "state"]
    for text in (
        ID,
        "active",
        "DELETE /orders/*; GET,HEAD /a",
        "(in 15 min)",
        "1 of 3",
        "odd \\x1b[2J reason",
        "due",
    ):
        assert text in first
    assert "ended" in second and " of " not in second
    assert run("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == running.answers["/v1/grants"]


def test_an_empty_list(capsys):
    assert run("list") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("answer", [{}, [1], None, "x"])
def test_an_answer_that_is_no_list(answer, running, capsys):
    running.answers["/v1/grants"] = answer
    assert run("list") == 1 and run("show", ID) == 1


def test_show_asks_the_sidecar_for_an_id(running, capsys):
    running.answers["/v1/grants"] = [{**HELD, "grant": "f" * 32}, HELD]
    assert run("show", ID) == 0
    shown = capsys.readouterr().out
    assert "allow      DELETE /orders/*" in shown and "\x1b" not in shown and "f" * 32 not in shown
    assert run("show", ID, "--json") == 0
    assert json.loads(capsys.readouterr().out) == HELD
    assert run("show", "e" * 32) == 1
    assert "knows no grant" in capsys.readouterr().err


def test_show_reads_a_file_with_nothing_running(people, running, capsys):
    for path in running.answers:
        running.answers[path] = UnavailableError("no sidecar answers")
    assert grant(*HERE, "--out", "grant.bg") == 0
    capsys.readouterr()
    assert run("show", "grant.bg") == 0
    shown = capsys.readouterr().out
    assert "somebody with the key SHA256:" in shown and "(in 15 min)" in shown
    assert run("show", "grant.bg", "--signers", "signers") == 0
    assert "oncall SHA256:" in capsys.readouterr().out
    (people / "signers").write_text((people / "lead.pub").read_text())
    assert run("show", "grant.bg", "--signers", "signers") == 3
    assert "not in the signers file" in capsys.readouterr().err


def test_show_says_when_a_signature_does_not_fit(people, capsys):
    data = bytearray(sign_order(make_grant(CLOCK), "oncall"))
    data[-1] ^= 1
    (people / "forged.bg").write_bytes(data)
    assert run("show", "forged.bg") == 3
    assert run("show", "none.bg") == 1


@pytest.mark.parametrize("kind", ["revoke", "review"])
def test_show_reads_the_other_orders_too(kind, people, capsys):
    more = ("--note", "looked at it") if kind == "review" else ("--reason", "looked at it")
    assert run(kind, ID, "--key", "lead", *more, "--out", "order") == 0
    capsys.readouterr()
    assert run("show", "order", "--signers", "signers") == 0
    shown = capsys.readouterr().out
    assert ID in shown and "looked at it" in shown and "lead SHA256:" in shown


@pytest.mark.peer("ssh-keygen")
def test_bg_04_ssh_keygen_verifies_what_show_gives(people, capsys):
    """An order can be checked with none of our code: the payload's exact bytes and one SSHSIG for each signer."""
    assert grant(*HERE, "--out", "grant.bg") == 0
    assert run("approve", "grant.bg", "--key", "lead") == 0
    capsys.readouterr()
    assert run("show", "grant.bg", "--json", "--signers", "signers") == 0
    shown = json.loads(capsys.readouterr().out)
    payload = base64.b64decode(shown["payload"])
    assert [each["person"] for each in shown["signatures"]] == ["oncall", "lead"]
    for each in shown["signatures"]:
        assert each["public_key"] in (people / f"{each['person']}.pub").read_text()
        (people / "sig").write_text(each["sshsig"])
        command = [
            "ssh-keygen",
            "-Y",
            "verify",
            "-f",
            "signers",
            "-I",
            each["person"],
            "-n",
            "break-glass@sidecar",
        ]
        done = subprocess.run([*command, "-s", "sig"], input=payload, capture_output=True, cwd=people)
        assert done.returncode == 0, done.stderr
        assert subprocess.run([*command, "-s", "sig"], input=payload + b"x", cwd=people).returncode != 0


def test_revoke_goes_to_the_running_sidecar(people, running, capsys):
    running.answers["/v1/orders"] = {
        "result": "accepted",
        "kind": "revocation",
        "grant": ID,
        "signer": "lead",
    }
    assert run("revoke", ID, "--key", "lead", "--reason", "done") == 0
    assert capsys.readouterr().out == f"the sidecar has the revocation of {ID}\n"
    order = decode_order(running.orders[0])
    assert order.body == Revocation(ID, "done", "lead", int(CLOCK.wall_s()))
    assert verify_single(order, load_signers(people / "signers")) == "lead"


def test_review_goes_to_the_running_sidecar(people, running, capsys):
    running.answers["/v1/orders"] = {"result": "accepted", "kind": "review", "grant": ID, "signer": "lead"}
    assert run("review", ID, "--key", "lead", "--note", "one order") == 0
    assert decode_order(running.orders[0]).body == Review(ID, "one order", "lead", int(CLOCK.wall_s()))
    assert run("review", ID, "--key", "lead", "--note", "one order", "--json") == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["sent"]["kind"] == "review"


@pytest.mark.parametrize("kind", ["revoke", "review"])
def test_orders_can_be_carried_elsewhere(kind, people, running, capsys):
    more = ("--note", "x") if kind == "review" else ()
    assert run(kind, ID, "--key", "lead", *more, "--out", "order") == 0
    assert running.orders == [] and capsys.readouterr().out == "written to order\n"
    assert run(kind, ID, "--key", "lead", *more, "--out", "order") == 2
    assert run(kind, ID, "--key", "lead", *more, "--out", "other", "--send") == 0
    assert running.orders == [(people / "other").read_bytes()]


@pytest.mark.parametrize("grant_id", ["", "x", ID[:-1], ID.upper().replace("0", "A"), ID + "0"])
def test_an_id_is_whole(grant_id, people, running, capsys):
    assert run("revoke", grant_id, "--key", "lead") == 2
    assert run("review", grant_id, "--note", "x", "--key", "lead") == 2
    assert running.orders == []


def test_a_note_is_one_line(people, running, capsys):
    assert run("review", ID, "--note", "two\nlines", "--key", "lead") == 2
    assert run("revoke", ID, "--reason", " ", "--key", "lead") == 2
    assert running.orders == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-24T12:00:00Z", "2026-11-24T12:00:00Z (now)"),
        ("2026-11-24T12:00:06Z", "2026-11-24T12:00:06Z (in 6 s)"),
        ("2026-11-24T12:14:00Z", "2026-11-24T12:14:00Z (in 14 min)"),
        ("2026-11-24T16:00:00Z", "2026-11-24T16:00:00Z (in 4 h)"),
        ("2026-11-30T12:00:00Z", "2026-11-30T12:00:00Z (in 6 days)"),
        ("2026-11-24T11:57:00Z", "2026-11-24T11:57:00Z (3 min ago)"),
        ("never", "never"),
    ],
)
def test_times_say_how_far_away_they_are(text, shown):
    assert moment(text, CLOCK.wall_s()) == shown
