from __future__ import annotations

import base64
import hashlib
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from sidecar.breakglass.signers import parse_signers, write_signer
from sidecar.breakglass.sshsig import (
    NAMESPACE,
    armor,
    dearmor,
    decode_public_key,
    encode_public_key,
    fingerprint,
    sign_message,
    verify_message,
)
from sidecar.errors import OrderRefused
from tests.fakes.orders import key_of, public_key_of

KEY = key_of("oncall")
PUBLIC = public_key_of("oncall")
MESSAGE = b"exactly these bytes"


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def blob(
    *,
    magic: bytes = b"SSHSIG",
    version: int = 1,
    key: bytes | None = None,
    namespace: bytes = b"break-glass@sidecar",
    reserved: bytes = b"",
    hash_name: bytes = b"sha512",
    kind: bytes = b"ssh-ed25519",
    tail: bytes = b"",
    inner_tail: bytes = b"",
) -> bytes:
    """A signature put together by hand; what is changed is signed too, so that nothing else is wrong with it."""
    digest = hashlib.new(hash_name.decode(), MESSAGE).digest()
    data = b"SSHSIG" + string(namespace) + string(reserved) + string(hash_name) + string(digest)
    signature = string(kind) + string(KEY.sign(data)) + inner_tail
    public = string(b"ssh-ed25519") + string(PUBLIC) if key is None else key
    parts = [string(public), string(namespace), string(reserved), string(hash_name), string(signature)]
    return magic + struct.pack(">I", version) + b"".join(parts) + tail


def test_a_signature_proves_its_key():
    assert verify_message(MESSAGE, sign_message(KEY, MESSAGE)) == PUBLIC


def test_the_layout_is_openssh_s():
    assert sign_message(KEY, MESSAGE) == blob()


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(blob(namespace=b"file"), id="another namespace"),
        pytest.param(blob(namespace=b"break-glass@sidecar "), id="a longer namespace"),
        pytest.param(blob(namespace=b""), id="no namespace"),
        pytest.param(blob(hash_name=b"sha256"), id="another hash"),
        pytest.param(blob(reserved=b"x"), id="reserved"),
        pytest.param(blob(magic=b"SSHSIH"), id="magic"),
        pytest.param(blob(version=2), id="version"),
        pytest.param(blob(kind=b"ssh-rsa"), id="kind of signature"),
        pytest.param(blob(key=string(b"ssh-rsa") + string(PUBLIC)), id="kind of key"),
        pytest.param(blob(key=string(b"sk-ssh-ed25519@openssh.com") + string(PUBLIC)), id="hardware key"),
        pytest.param(blob(key=string(b"ssh-ed25519") + string(PUBLIC[:-1])), id="short key"),
        pytest.param(blob(key=string(b"ssh-ed25519") + string(PUBLIC) + b"x"), id="bytes after the key"),
        pytest.param(blob(tail=b"x"), id="bytes at the end"),
        pytest.param(blob(inner_tail=b"x"), id="bytes after the signature"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSHSIG", id="magic only"),
        pytest.param(blob()[:-1], id="cut off"),
        pytest.param(b"SSHSIG\0\0\0\1\xff\xff\xff\xff", id="a length beyond the end"),
    ],
)
def test_everything_that_could_be_chosen_is_fixed(changed):
    with pytest.raises(OrderRefused) as refusal:
        verify_message(MESSAGE, changed)
    assert refusal.value.code == "malformed"


def test_another_message_or_key_does_not_fit():
    for message, signature in (
        (MESSAGE + b"x", sign_message(KEY, MESSAGE)),
        (MESSAGE, sign_message(KEY, MESSAGE + b"x")),
        (MESSAGE, sign_message(KEY, MESSAGE).replace(PUBLIC, public_key_of("lead"))),
    ):
        with pytest.raises(OrderRefused) as refusal:
            verify_message(message, signature)
        assert refusal.value.code == "signature"


def test_a_raw_signature_without_the_envelope_is_none():
    with pytest.raises(OrderRefused):
        verify_message(MESSAGE, KEY.sign(MESSAGE))


def test_a_key_that_is_no_point_is_refused():
    with pytest.raises(OrderRefused):
        verify_message(MESSAGE, blob(key=string(b"ssh-ed25519") + string(b"\xff" * 32)))


def test_every_changed_byte_is_found():
    good = sign_message(KEY, MESSAGE)
    for place in range(len(good)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(good)
            changed[place] ^= flip
            with pytest.raises(OrderRefused):
                verify_message(MESSAGE, bytes(changed))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data):
    with pytest.raises(OrderRefused):
        verify_message(MESSAGE, data)
    with pytest.raises(OrderRefused):
        verify_message(MESSAGE, blob()[:10] + data)


def test_public_keys_have_one_form():
    assert decode_public_key(encode_public_key(PUBLIC)) == PUBLIC
    for data in (b"", PUBLIC, encode_public_key(PUBLIC) + b"x", encode_public_key(PUBLIC)[:-1]):
        with pytest.raises(ValueError, match=r"too early|no ssh-ed25519 key"):
            decode_public_key(data)


def test_armor_comes_back():
    signature = sign_message(KEY, MESSAGE)
    assert dearmor(armor(signature)) == signature
    assert max(len(line) for line in armor(signature).splitlines()) <= 70


@pytest.mark.parametrize(
    "text",
    ["", "x", armor(b"x" * 60)[1:], armor(b"x").replace("END", "END "), armor(b"x" * 9).replace("eH", "e!")],
)
def test_what_is_no_armor(text):
    with pytest.raises(OrderRefused) as refusal:
        dearmor(text)
    assert refusal.value.code == "malformed"


def write_key(path: Path) -> Path:
    data = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def ssh_keygen(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", *map(str, arguments)], input=stdin, capture_output=True, check=False)


@pytest.mark.peer("ssh-keygen")
def test_ssh_keygen_accepts_what_we_sign(tmp_path):
    (tmp_path / "signers").write_text(write_signer("oncall", PUBLIC))
    (tmp_path / "sig").write_text(armor(sign_message(KEY, MESSAGE)))
    verify = ("-Y", "verify", "-f", tmp_path / "signers", "-I", "oncall", "-s", tmp_path / "sig")
    assert ssh_keygen(*verify, "-n", NAMESPACE, stdin=MESSAGE).returncode == 0
    assert ssh_keygen(*verify, "-n", NAMESPACE, stdin=MESSAGE + b"x").returncode != 0
    assert ssh_keygen(*verify, "-n", "file", stdin=MESSAGE).returncode != 0


@pytest.mark.peer("ssh-keygen")
def test_we_accept_what_ssh_keygen_signs(tmp_path):
    key = write_key(tmp_path / "key")
    signed = ssh_keygen("-Y", "sign", "-f", key, "-n", NAMESPACE, stdin=MESSAGE)
    assert signed.returncode == 0, signed.stderr
    assert verify_message(MESSAGE, dearmor(signed.stdout.decode())) == PUBLIC
    for options in (("-n", "file"), ("-n", NAMESPACE, "-O", "hashalg=sha256")):
        other = ssh_keygen("-Y", "sign", "-f", key, *options, stdin=MESSAGE)
        assert other.returncode == 0, other.stderr
        with pytest.raises(OrderRefused):
            verify_message(MESSAGE, dearmor(other.stdout.decode()))


@pytest.mark.peer("ssh-keygen")
def test_the_fingerprint_is_ssh_keygen_s(tmp_path):
    line = write_signer("oncall", PUBLIC).split(" ", 2)[2]
    (tmp_path / "key.pub").write_text(line)
    shown = ssh_keygen("-l", "-f", tmp_path / "key.pub").stdout.decode()
    assert fingerprint(PUBLIC) in shown
    assert base64.b64decode(line.split()[1]) == encode_public_key(PUBLIC)


@pytest.mark.peer("ssh-keygen")
def test_a_key_that_ssh_keygen_made_can_be_a_signer(tmp_path):
    assert (
        ssh_keygen("-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id", "-C", "jo@laptop").returncode == 0
    )
    kind, key, comment = (tmp_path / "id.pub").read_text().split()
    signers = parse_signers(f'jo namespaces="{NAMESPACE}" {kind} {key} {comment}\n', "signers")
    assert signers.names == ("jo",)
