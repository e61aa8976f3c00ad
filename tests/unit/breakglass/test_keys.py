from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import ssh

from sidecar.breakglass.keys import (
    MAX_KEY_BYTES,
    can_encrypt,
    find_person,
    load_key,
    read_secret,
    write_key_pair,
)
from sidecar.breakglass.signers import load_signers, write_signer
from sidecar.errors import ConfigurationError
from tests.fakes.orders import public_key_of

needs_bcrypt = pytest.mark.skipif(not can_encrypt(), reason="needs bcrypt, which the core does not depend on")


def nobody() -> bytes | None:
    raise AssertionError("no passphrase should be asked for")


def no_passphrase() -> None:
    return None


def openssh(key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def test_a_pair_that_was_made_can_be_used(tmp_path):
    made = write_key_pair(tmp_path / "oncall", "oncall", None)
    loaded = load_key(tmp_path / "oncall", nobody)
    public = made.public_key().public_bytes_raw()
    assert loaded.public_key().public_bytes_raw() == public
    assert load_signers(tmp_path / "oncall.pub").people == {public: "oncall"}
    assert find_person(tmp_path / "oncall", loaded) == "oncall"
    assert (tmp_path / "oncall").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("taken", ["oncall", "oncall.pub"])
def test_nothing_is_overwritten(taken, tmp_path):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(ConfigurationError, match="exists"):
        write_key_pair(tmp_path / "oncall", "oncall", None)
    assert [each.name for each in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "oncall").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="exists"):
        write_key_pair(tmp_path / "oncall", "oncall", None)
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be made: No such file"):
        write_key_pair(tmp_path / "none" / "oncall", "oncall", None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o644, 0o777])
def test_a_key_that_is_open_to_others_is_refused(mode, tmp_path):
    write_key_pair(tmp_path / "oncall", "oncall", None)
    (tmp_path / "oncall").chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod it to 0600"):
        load_key(tmp_path / "oncall", nobody)


def secret_file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n????\n-----END OPENSSH PRIVATE KEY-----\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_key_is_refused(data, tmp_path):
    with pytest.raises(ConfigurationError, match="no OpenSSH private key"):
        load_key(secret_file(tmp_path / "key", data), nobody)


def test_another_kind_of_key_is_refused(tmp_path):
    data = openssh(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ConfigurationError, match="no ssh-ed25519 key"):
        load_key(secret_file(tmp_path / "key", data), nobody)


def test_a_file_that_is_missing_or_huge_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        load_key(tmp_path / "none", nobody)
    assert len(read_secret(secret_file(tmp_path / "key", b"x" * MAX_KEY_BYTES), "it")) == MAX_KEY_BYTES
    with pytest.raises(ConfigurationError, match="more than"):
        read_secret(secret_file(tmp_path / "key", b"x" * (MAX_KEY_BYTES + 1)), "it")


def test_the_person_is_not_guessed(tmp_path):
    key = write_key_pair(tmp_path / "oncall", "oncall", None)
    public = tmp_path / "oncall.pub"
    line = public.read_text()
    public.write_text(write_signer("oncall", public_key_of("lead")))
    with pytest.raises(ConfigurationError, match="not the public half"):
        find_person(tmp_path / "oncall", key)
    for text in (line.split(" ", 2)[2], "", line * 2):
        public.write_text(text)
        with pytest.raises(ConfigurationError, match="give --signer NAME"):
            find_person(tmp_path / "oncall", key)
    public.unlink()
    with pytest.raises(ConfigurationError, match="give --signer NAME"):
        find_person(tmp_path / "oncall", key)


@needs_bcrypt
def test_an_encrypted_key_needs_its_passphrase(tmp_path):
    made = write_key_pair(tmp_path / "oncall", "oncall", b"correct horse")
    loaded = load_key(tmp_path / "oncall", lambda: b"correct horse")
    assert loaded.public_key().public_bytes_raw() == made.public_key().public_bytes_raw()
    with pytest.raises(ConfigurationError, match="passphrase is wrong"):
        load_key(tmp_path / "oncall", lambda: b"battery staple")
    with pytest.raises(ConfigurationError, match="is encrypted; give --passphrase-file"):
        load_key(tmp_path / "oncall", no_passphrase)


@needs_bcrypt
@pytest.mark.peer("ssh-keygen")
def test_ssh_keygen_opens_the_encrypted_key(tmp_path):
    write_key_pair(tmp_path / "oncall", "oncall", b"correct horse")
    command = ["ssh-keygen", "-y", "-f", str(tmp_path / "oncall"), "-P"]
    shown = subprocess.run([*command, "correct horse"], capture_output=True, text=True)
    assert shown.stdout.split()[:2] == (tmp_path / "oncall.pub").read_text().split()[2:4]
    assert subprocess.run([*command, "wrong"], capture_output=True, check=False).returncode != 0


@pytest.mark.peer("ssh-keygen")
def test_an_encrypted_key_without_the_library_says_what_is_missing(tmp_path, monkeypatch):
    path = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "correct horse", "-f", str(path)], check=True)
    with pytest.raises(ConfigurationError, match="is encrypted; give --passphrase-file"):
        load_key(path, no_passphrase)
    without_bcrypt(monkeypatch)
    with pytest.raises(ConfigurationError, match="need the package bcrypt"):
        load_key(path, lambda: b"correct horse")


def test_without_the_library_no_key_is_left_in_the_clear(tmp_path, monkeypatch):
    without_bcrypt(monkeypatch)
    assert not can_encrypt()
    with pytest.raises(ConfigurationError, match="cannot be encrypted"):
        write_key_pair(tmp_path / "oncall", "oncall", b"correct horse")
    assert list(tmp_path.iterdir()) == []


def without_bcrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the package is not installed."""

    def missing(*arguments: object, **options: object) -> bytes:
        raise ssh.UnsupportedAlgorithm("Need bcrypt module")

    monkeypatch.setattr(ssh, "_bcrypt_supported", False)
    monkeypatch.setattr(ssh, "_bcrypt_kdf", missing)
