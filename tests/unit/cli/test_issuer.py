from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.cli import main
from sidecar.cli.issuer import find_issuer_dir
from sidecar.errors import ConfigurationError
from sidecar.issuer.store import open_store

WEB = "spiffe://shop.test/web"


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """`issuer run` configures the log of the whole process, which here is the test run."""
    root, own = logging.getLogger(), logging.getLogger("sidecar")
    before = (root.handlers[:], root.level, own.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])
    logging.captureWarnings(False)


@pytest.fixture()
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("SIDECAR_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state" / "issuer"


@pytest.fixture()
def authority(directory, capsys):
    assert main.run(["issuer", "init", "--trust-domain", "shop.test"]) == 0
    capsys.readouterr()
    return directory


def run(capsys, *words):
    code = main.run(["issuer", *map(str, words)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_init_makes_an_authority_where_the_environment_says(directory, capsys):
    code, out, _ = run(capsys, "init", "--trust-domain", "shop.test")
    assert code == 0
    assert out.startswith(f"authority of shop.test in {directory}, good until 20")
    assert open_store(directory).trust_domain == "shop.test"


def test_init_never_overwrites(authority, capsys):
    before = (authority / "authority.pem").read_bytes()
    code, _, err = run(capsys, "init", "--trust-domain", "other.test")
    assert code == 2 and "never overwritten" in err
    assert (authority / "authority.pem").read_bytes() == before


@pytest.mark.parametrize(
    "name", ["Shop.test", "", "shop.test:8443", "spiffe://shop.test", "shop test", "a" * 256]
)
def test_init_refuses_what_is_no_trust_domain(directory, capsys, name):
    code, _, err = run(capsys, "init", "--trust-domain", name)
    assert code == 2 and "--trust-domain" in err
    assert not directory.exists()


def test_init_refuses_a_directory_that_others_may_write_to(tmp_path, capsys):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    code, _, err = run(capsys, "init", "--trust-domain", "shop.test", "--dir", tmp_path / "open")
    assert code == 1 and "may be written by others" in err
    assert list((tmp_path / "open").iterdir()) == []


def test_an_entry_is_added_once_and_adding_it_again_is_no_error(authority, capsys):
    code, out, _ = run(capsys, "entry", "add", WEB)
    assert (code, out) == (0, f"{WEB} added; its files: {authority}/svids/web\n")
    code, out, _ = run(capsys, "entry", "add", WEB)
    assert code == 0 and "was there already" in out
    assert list(open_store(authority).entries()) == ["web"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spiffe://other.test/web", "another trust domain"),
        ("spiffe://shop.test", "needs a path"),
        ("spiffe://shop.test/../x", "segment"),
        ("web", "not a SPIFFE ID"),
    ],
)
@pytest.mark.parametrize("what", [("entry", "add"), ("entry", "remove"), ("run", "--once", "--entry")])
def test_an_id_that_the_authority_may_not_issue_to_is_refused(authority, capsys, what, text, words):
    code, _, err = run(capsys, *what, text)
    assert code == 2 and words in err
    assert open_store(authority).entries() == {}


@pytest.mark.parametrize("what", [("entry", "add", WEB), ("entry", "list"), ("show",), ("run", "--once")])
def test_without_an_authority_the_way_to_one_is_told(directory, capsys, what):
    code, _, err = run(capsys, *what)
    assert code == 2 and "sidecar issuer init --trust-domain" in err


def test_an_entry_is_removed(authority, capsys):
    run(capsys, "entry", "add", WEB)
    assert run(capsys, "entry", "remove", WEB)[:2] == (0, f"{WEB} removed\n")
    code, _, err = run(capsys, "entry", "remove", WEB)
    assert code == 1 and "there is no entry" in err


def test_entries_are_listed_with_what_they_have(authority, capsys):
    run(capsys, "entry", "add", WEB)
    code, out, _ = run(capsys, "entry", "list", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert (row["spiffe_id"], row["not_after"], row["serial"]) == (WEB, None, None)
    assert row["directory"] == str(authority / "svids" / "web")
    assert run(capsys, "run", "--once")[0] == 0
    (row,) = json.loads(run(capsys, "entry", "list", "--json")[1])
    assert row["not_after"].endswith("Z") and row["serial"]
    text = run(capsys, "entry", "list")[1]
    assert WEB in text and row["not_after"] in text


def test_a_damaged_entry_is_told_and_the_others_are_listed(authority, capsys):
    run(capsys, "entry", "add", WEB)
    (authority / "entries" / "bad.json").touch(0o600)
    for what in (("entry", "list"), ("show",)):
        code, out, err = run(capsys, *what, "--json")
        assert code == 1 and "'bad' is damaged" in err
        assert WEB in out


def test_the_authority_is_shown(authority, capsys):
    code, out, _ = run(capsys, "show", "--json")
    shown = json.loads(out)
    assert code == 0
    assert (shown["trust_domain"], shown["issuing"], shown["entries"]) == ("shop.test", False, [])
    assert shown["not_after"].endswith("Z") and shown["directory"] == str(authority)
    lock = open_store(authority).run_lock()
    lock.acquire(wait=False)
    assert json.loads(run(capsys, "show", "--json")[1])["issuing"] is True
    lock.release()
    text = run(capsys, "show")[1]
    assert "shop.test" in text and shown["not_after"] in text


def test_only_run_opens_the_key(authority, capsys):
    (authority / "authority_key.pem").unlink()
    for what in (("entry", "add", WEB), ("entry", "list"), ("show",), ("entry", "remove", WEB)):
        assert run(capsys, *what)[0] == 0, what
    code, _, err = run(capsys, "run", "--once")
    assert code == 1 and "authority_key.pem" in err


def test_run_once_issues_and_logs_it(authority, capsys):
    code, out, err = run(capsys, "run", "--once", "--entry", WEB)
    assert code == 0 and out == ""
    assert f'"spiffe_id": "{WEB}"' in err and '"not_after": "' in err
    assert (authority / "svids" / "web" / "svid_key.pem").stat().st_mode & 0o777 == 0o600


def test_run_once_says_by_its_exit_code_that_something_is_undone(authority, capsys):
    (authority / "entries" / "bad.json").touch(0o600)
    assert run(capsys, "run", "--once")[0] == 1


def test_run_makes_the_authority_if_asked(directory, capsys):
    assert run(capsys, "run", "--once", "--init")[0] == 2
    assert not directory.exists()
    assert run(capsys, "run", "--once", "--init", "--entry", WEB)[0] == 0
    assert open_store(directory).trust_domain == "shop.test"


@pytest.mark.parametrize("text", ["9s", "25h", "1", "", "-1h", "1d"])
def test_a_lifetime_out_of_bounds_is_refused(authority, capsys, text):
    code, _, err = run(capsys, "run", "--once", "--leaf-ttl", text)
    assert code == 2 and "--leaf-ttl" in err


@pytest.mark.parametrize(("name", "value"), [("SIDECAR_LOG_LEVEL", "loud"), ("SIDECAR_LOG_FORMAT", "xml")])
def test_a_log_setting_that_is_none_is_refused(authority, capsys, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    code, _, err = run(capsys, "run", "--once")
    assert code == 2 and name in err


def test_a_tied_run_ends_with_its_standard_input(authority):
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "issuer", "run", "--tied", "--dir", str(authority)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("environ", "option", "expected"),
    [
        ({}, None, "/var/lib/sidecar/issuer"),
        ({"SIDECAR_STATE_DIR": "/s"}, None, "/s/issuer"),
        ({"SIDECAR_STATE_DIR": "/s", "SIDECAR_ISSUER_DIR": "/i"}, None, "/i"),
        ({"SIDECAR_STATE_DIR": "/s", "SIDECAR_ISSUER_DIR": ""}, None, "/s/issuer"),
        ({"SIDECAR_ISSUER_DIR": "/i"}, Path("/d"), "/d"),
        ({"SIDECAR_STATE_DIR": " odd"}, Path("/d"), "/d"),
    ],
)
def test_where_the_issuer_lives(environ, option, expected):
    assert find_issuer_dir(environ, option) == Path(expected)


def test_a_relative_directory_starts_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert find_issuer_dir({"SIDECAR_STATE_DIR": "state"}) == tmp_path / "state" / "issuer"
    assert find_issuer_dir({}, Path("i")) == tmp_path / "i"


@pytest.mark.parametrize("name", ["SIDECAR_STATE_DIR", "SIDECAR_ISSUER_DIR"])
def test_a_path_that_is_none_is_told_by_the_name_of_its_variable(name):
    with pytest.raises(ConfigurationError, match=name):
        find_issuer_dir({name: "odd\n"})


def test_help_needs_no_certificate_library():
    script = (
        "import sys; from sidecar.cli import main; main.run(['issuer', '--help'])\n"
        "sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0
