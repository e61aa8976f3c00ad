from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.breakglass import signers as signers_module
from sidecar.breakglass.signers import (
    MAX_FILE_BYTES,
    MAX_KEYS,
    NO_SIGNERS,
    load_signers,
    parse_signer,
    parse_signers,
    write_signer,
)
from sidecar.breakglass.sshsig import encode_public_key
from sidecar.errors import ConfigurationError, ProblemsError
from tests.fakes.orders import public_key_of, signers_of

OPTION = 'namespaces="break-glass@sidecar"'


def key(name: str) -> str:
    return "ssh-ed25519 " + base64.b64encode(encode_public_key(public_key_of(name))).decode()


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(ProblemsError) as refusal:
        parse_signers(text, "signers")
    return refusal.value.problems


def test_lines_of_keygen_make_a_file():
    text = write_signer("oncall", public_key_of("oncall")) + write_signer("lead", public_key_of("lead"))
    assert text.startswith(f"oncall {OPTION} ssh-ed25519 AAAA")
    assert parse_signers(text, "signers") == signers_of("oncall", "lead")


def test_comments_blank_lines_tabs_and_a_comment_behind_the_key_are_taken():
    text = f"# who may\n\n \t\n  oncall\t{OPTION}  {key('oncall')}  jo's laptop é\n"
    signers = parse_signers(text, "signers")
    assert signers.names == ("oncall",) and signers.find(public_key_of("oncall")) == "oncall"
    assert signers.find(public_key_of("lead")) is None


def test_bg_02_a_person_with_two_keys_is_one_person():
    text = f"oncall {OPTION} {key('oncall')}\noncall {OPTION} {key('oncall#2')}\n"
    assert parse_signers(text, "signers").names == ("oncall",)


@pytest.mark.parametrize("text", ["", "\n", "# nobody yet\n"])
def test_an_empty_file_has_no_signers(text):
    assert parse_signers(text, "signers") == NO_SIGNERS and not NO_SIGNERS.names


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"* {OPTION} {key('a')}", "wildcard"),
        (f"on* {OPTION} {key('a')}", "wildcard"),
        (f"on?all {OPTION} {key('a')}", "wildcard"),
        (f"!oncall {OPTION} {key('a')}", "wildcard"),
        (f"oncall,lead {OPTION} {key('a')}", "several names"),
        (f"оncall {OPTION} {key('a')}", "no name of a signer"),
        (f'"on call" {OPTION} {key("a")}', "no name of a signer"),
        (f"oncall {key('a')}", "expected namespaces="),
        (f"oncall cert-authority,{OPTION} {key('a')}", "expected namespaces="),
        (f"oncall {OPTION},cert-authority {key('a')}", "expected namespaces="),
        (f"oncall {OPTION},valid-before=20300101 {key('a')}", "expected namespaces="),
        (f'oncall namespaces="*" {key("a")}', "expected namespaces="),
        (f'oncall namespaces="file,break-glass@sidecar" {key("a")}', "expected namespaces="),
        (f"oncall namespaces=break-glass@sidecar {key('a')}", "expected namespaces="),
        (f"oncall {OPTION.upper()} {key('a')}", "expected namespaces="),
        (f"oncall {OPTION}", "expected namespaces="),
        (f"oncall {OPTION} ssh-ed25519", "expected namespaces="),
        ("oncall", "expected namespaces="),
        (key("a"), "no name of a signer|expected namespaces="),
        (f"oncall {OPTION} ssh-rsa AAAA", "of type 'ssh-rsa'"),
        (f"oncall {OPTION} sk-ssh-ed25519@openssh.com AAAA", "of type 'sk-ssh"),
        (f"oncall {OPTION} ssh-ed25519 AAAA", "not the base64"),
        (f"oncall {OPTION} ssh-ed25519 ????", "not the base64"),
        (f"oncall {OPTION} {key('a')[:-2]}", "not the base64"),
        (f"oncall {OPTION} {key('a')}=", "not the base64|one form"),
        (f"oncall {OPTION} ssh-ed25519 {base64.b64encode(b'x' * 51).decode()}", "not the base64"),
        (f"oncall {OPTION} {key('a')}\r", "control characters"),
        (f"oncall {OPTION} {key('a')} \x1b[2J", "control characters"),
        (f"oncall\x00 {OPTION} {key('a')}", "control characters"),
        (f"oncall\u2028lead {OPTION} {key('a')}", "control characters"),
    ],
)
def test_every_other_line_is_an_error(line, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_signer(line)
    good = f"lead {OPTION} {key('lead')}"
    (problem,) = problems_of(f"{good}\n# comment\n{line}\n")
    assert problem.startswith("signers:3: ")


def test_all_mistakes_are_told_at_once():
    found = problems_of(f"a b\n{OPTION}\nlead {OPTION} {key('lead')}\n* {OPTION} {key('a')}\n")
    assert [problem.partition(": ")[0] for problem in found] == ["signers:1", "signers:2", "signers:4"]


def test_one_wrong_line_spoils_the_file():
    assert problems_of(f"lead {OPTION} {key('lead')}\nnonsense\n")


@pytest.mark.parametrize("second", ["lead", "oncall"])
def test_bg_01_a_key_stands_once(second):
    (problem,) = problems_of(f"oncall {OPTION} {key('a')}\n{second} {OPTION} {key('a')}\n")
    assert problem.startswith("signers:2: ") and "stands here already" in problem


def test_bg_15_names_that_differ_in_case_only_are_refused():
    (problem,) = problems_of(f"oncall {OPTION} {key('a')}\nOncall {OPTION} {key('b')}\n")
    assert "differ in case" in problem


def test_bg_14_a_huge_file_is_refused(tmp_path):
    line = f"lead {OPTION} {key('lead')}\n"
    path = tmp_path / "signers"
    path.write_text(line + "#" * (MAX_FILE_BYTES - len(line)))
    assert load_signers(path).names == ("lead",)
    path.write_text(line + "#" * (MAX_FILE_BYTES - len(line) + 1))
    with pytest.raises(ConfigurationError, match=f"more than {MAX_FILE_BYTES} bytes"):
        load_signers(path)


def test_bg_14_too_many_keys_are_refused(monkeypatch):
    monkeypatch.setattr(signers_module, "MAX_KEYS", 3)
    lines = [f"p{number} {OPTION} {key(str(number))}\n" for number in range(4)]
    assert len(parse_signers("".join(lines[:3]), "signers").names) == 3
    assert "more than 3 keys" in problems_of("".join(lines))[0]
    assert MAX_KEYS == 1000


def test_bg_14_a_file_of_mistakes_is_not_told_line_by_line():
    assert len(problems_of("x\n" * 5000)) == signers_module.MAX_PROBLEMS


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_is_refused(mode, tmp_path):
    path = tmp_path / "signers"
    path.write_text(f"lead {OPTION} {key('lead')}\n")
    path.chmod(0o644)
    assert load_signers(path).names == ("lead",)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="who can write it decides"):
        load_signers(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(tmp_path):
    path = tmp_path / "signers"
    path.write_text("")
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigurationError, match="belongs to uid 12345"):
        load_signers(path)


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        load_signers(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="no regular file"):
        load_signers(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigurationError, match="no regular file"):
        load_signers(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"# \xff\n")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load_signers(tmp_path / "latin")


def test_problems_name_the_file(tmp_path):
    path = tmp_path / "signers"
    path.write_text("nonsense\n")
    with pytest.raises(ProblemsError) as refusal:
        load_signers(path)
    assert refusal.value.problems[0].startswith(f"{path}:1: ")


def test_signers_cannot_be_changed():
    signers = parse_signers(f"lead {OPTION} {key('lead')}\n", "signers")
    with pytest.raises(TypeError):
        signers.people[b"x"] = "somebody"  # type: ignore[index]


WORDS = st.sampled_from(
    ["oncall", "*", OPTION, "ssh-ed25519", key("a").split()[1], key("b"), " ", "\n", "#", "\t", "x"]
)


@given(
    st.lists(WORDS, max_size=30).map(" ".join) | st.binary(max_size=100).map(lambda b: b.decode("latin-1"))
)
def test_any_text_gives_signers_or_problems(text):
    try:
        signers = parse_signers(text, "signers")
    except ProblemsError as exc:
        assert all(problem.startswith("signers:") for problem in exc.problems)
    else:
        assert all(len(each) == 32 for each in signers.people)
