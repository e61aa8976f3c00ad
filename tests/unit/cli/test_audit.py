from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.audit.lines import Lines, Place
from sidecar.cli import audit as audit_module
from sidecar.cli import main
from sidecar.cli.audit import find_log
from sidecar.errors import ConfigurationError
from tests.fakes.audit import LOG, WALL_S, call, event, make_key, make_lines, start

KEY = make_key()
ALL = make_lines(KEY, 30)


@pytest.fixture
def state(tmp_path):
    """A state directory at rest: a log and the public half of its key."""
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "00000001.jsonl").write_bytes(b"".join(ALL))
    write_key(tmp_path / "audit.pub")
    return tmp_path


def write_key(path, seed: int = 1) -> None:
    path.write_bytes(make_key(seed).public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def run(*words: object) -> int:
    return main.run(["audit", *map(str, words)])


# tail


def test_tail_shows_the_last_lines_for_people(state, capsys):
    assert run("tail", "-n", 3, state / "audit") == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3
    assert "call  " in shown[1] and "spiffe://demo.test/web  GET /orders/42  allow policy  200" in shown[1]
    assert f"checkpoint  signs seq 1 to {len(ALL) - 1}  head=" in shown[2]


def test_tail_finds_the_log_by_the_environment(state, capsys, monkeypatch):
    monkeypatch.setenv("SIDECAR_STATE_DIR", str(state))
    assert run("tail") == 0
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_tail_gives_the_lines_as_they_are(state, capsys):
    assert run("tail", "-n", 5, "--json", state / "audit") == 0
    assert capsys.readouterr().out.encode() == b"".join(ALL[-5:])


def test_tail_picks_events(state, capsys):
    assert run("tail", "-n", 2, "--event", "checkpoint", "--json", state / "audit") == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["event"] for record in shown] == ["checkpoint", "checkpoint"]
    assert run("tail", "--event", "start", state / "audit") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert run("tail", "--event", "lock", state / "audit") == 0
    assert capsys.readouterr().out == ""


def test_tail_leaves_a_torn_line_out(state, capsys):
    with (state / "audit" / "00000001.jsonl").open("ab") as file:
        file.write(b'{"v":1,"seq":')
    assert run("tail", "-n", 1, "--json", state / "audit") == 0
    assert capsys.readouterr().out.encode() == ALL[-1]


def test_tail_of_nothing_fails(tmp_path, capsys):
    assert run("tail", tmp_path) == 1
    assert "no audit log" in capsys.readouterr().err
    assert run("tail", tmp_path / "gone") == 1


def test_tail_follows_what_is_written(state, capsys, monkeypatch):
    path = state / "audit" / "00000001.jsonl"
    lines = Lines(Place(LOG, len(ALL), "a" * 64), KEY, lambda: 0)
    turns = iter([lines.encode([call(77)]), lines.encode([event("admin", operation="drain")])])

    def sleep(seconds: float) -> None:
        more = next(turns, None)
        if more is None:
            raise KeyboardInterrupt
        with path.open("ab") as file:
            file.write(more)

    monkeypatch.setattr(audit_module.time, "sleep", sleep)
    assert run("tail", "-n", 0, "-f", "--event", "call", state / "audit") == 130
    assert capsys.readouterr().out.count("id=call-77") == 1


def test_tail_into_a_pipe_that_closes_is_quiet(state):
    words = [sys.executable, "-m", "sidecar", "audit", "tail", "-n", "30", str(state / "audit")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({}, "/var/lib/sidecar/audit"),
        ({"SIDECAR_STATE_DIR": "/s"}, "/s/audit"),
        ({"SIDECAR_STATE_DIR": "/s", "SIDECAR_AUDIT": "file,stdout"}, "/s/audit"),
        ({"SIDECAR_STATE_DIR": "/s", "SIDECAR_AUDIT": "stdout,file:/logs"}, "/logs"),
    ],
)
def test_the_log_is_where_the_settings_say(environment, directory):
    assert str(find_log(environment)) == directory


def test_settings_that_cannot_be_read_are_named():
    with pytest.raises(ConfigurationError, match="SIDECAR_AUDIT: "):
        find_log({"SIDECAR_AUDIT": "nowhere"})


# verify


def test_verify_says_what_is_proved_and_what_is_not(state, capsys):
    assert run("verify", state / "audit", "--key", state / "audit.pub") == 0
    shown = capsys.readouterr().out
    assert f"ok: {len(ALL)} lines (seq 1 to {len(ALL)})" in shown
    assert f"log {LOG}, key {KEY.key_id} (from {state / 'audit.pub'})" in shown
    assert "no anchors given" in shown
    assert "tamper-evident up to the last anchored checkpoint" in shown
    assert "cannot rewrite the anchored past" in shown


def test_verify_without_a_key_takes_the_one_beside_the_log_and_says_that_it_proves_less(state, capsys):
    assert run("verify", state / "audit") == 0
    assert "beside the log" in capsys.readouterr().out


def test_verify_without_any_key_takes_what_the_log_states_and_says_so(state, capsys):
    (state / "audit.pub").unlink()
    assert run("verify", state / "audit") == 0
    assert "as the log itself states it" in capsys.readouterr().out
    (state / "audit" / "00000001.jsonl").write_bytes(b"".join(ALL[1:]))
    assert run("verify", state / "audit") == 2
    assert "--key" in capsys.readouterr().err


def test_verify_names_the_first_bad_line(state, capsys):
    path = state / "audit" / "00000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b"call-20", b"call-99"))
    assert run("verify", state / "audit") == 3
    number = next(number for number, line in enumerate(ALL, 1) if b"call-20" in line)
    assert f"sidecar: 00000001.jsonl:{number}: the line was changed" in capsys.readouterr().err


def test_verify_with_another_key_fails(state, capsys):
    write_key(state / "other.pub", seed=2)
    assert run("verify", state / "audit", "--key", state / "other.pub") == 3
    assert "another key" in capsys.readouterr().err


def test_verify_compares_with_anchors(state, capsys):
    path, anchors = state / "audit" / "00000001.jsonl", state / "anchors"
    anchors.write_bytes(b"some other line\n" + ALL[-1])
    assert run("verify", state / "audit", "--anchors", anchors) == 0
    assert "1 anchor met" in capsys.readouterr().out
    path.write_bytes(b"".join(ALL[:-2]))
    assert run("verify", state / "audit") == 0
    capsys.readouterr()
    assert run("verify", state / "audit", "--anchors", anchors) == 3
    assert "the end is missing" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"nothing here\n"])
def test_verify_with_anchors_that_say_nothing_fails(state, capsys, content):
    (state / "anchors").write_bytes(content)
    assert run("verify", state / "audit", "--anchors", state / "anchors") == 3
    assert run("verify", state / "audit", "--anchors", state / "gone") == 2


def test_verify_as_json(state, capsys):
    assert run("verify", "--json", state / "audit") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["lines"], report["head"][:0]) == (True, len(ALL), "")
    assert "claim" in report and "key_source" in report
    (state / "audit" / "00000001.jsonl").write_bytes(b"".join(ALL[:5] + ALL[6:]))
    assert run("verify", "--json", state / "audit") == 3
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["file"], report["line"]) == (False, "00000001.jsonl", 6)


def test_verify_takes_files_too(state, capsys):
    end = next(number for number, line in enumerate(ALL, 1) if b'"checkpoint"' in line)
    audit = state / "audit"
    (audit / "00000001.jsonl").write_bytes(b"".join(ALL[:end]))
    (audit / "00000002.jsonl").write_bytes(b"".join(ALL[end - 1 :]))
    assert run("verify", audit) == 0
    assert "2 files" in capsys.readouterr().out
    assert run("verify", audit / "00000001.jsonl", audit / "00000002.jsonl") == 0
    assert run("verify", audit / "00000002.jsonl") == 0
    assert f"(seq {end} to {len(ALL)})" in capsys.readouterr().out
    (audit / "00000001.jsonl").unlink()
    assert run("verify", audit) == 3
    assert "00000001.jsonl: the file is missing" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["gone"], ["empty"], ["empty", "empty"]])
def test_verify_of_nothing_is_a_usage_error(tmp_path, capsys, words):
    (tmp_path / "empty").mkdir()
    assert run("verify", *(tmp_path / word for word in words)) == 2


def test_lines_that_no_checkpoint_covers_yet_are_counted(tmp_path, capsys):
    lines = Lines(Place(LOG), KEY, lambda: 0)
    data = (
        lines.encode([start(KEY, after="crash"), event("gap")]) + lines.sign(WALL_S) + lines.encode([call(1)])
    )
    (tmp_path / "a.jsonl").write_bytes(data + lines.sign(WALL_S - 9) + lines.encode([call(2)]))
    assert run("verify", tmp_path / "a.jsonl") == 0
    shown = capsys.readouterr().out
    assert "not signed yet: the last 1 line" in shown
    assert "1 start after a crash" in shown and "1 gap: calls were refused" in shown
    assert "warning: a.jsonl:5: the clock went back" in shown


def test_the_command_is_light():
    heavy = ("msgspec", "cryptography", "asyncio")
    code = f"import sys, sidecar.cli.audit; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.strip() == "[]"
