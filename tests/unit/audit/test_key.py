from __future__ import annotations

import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sidecar.audit.chain import show_key
from sidecar.audit.key import load_public_key, open_key
from sidecar.errors import ConfigurationError, StateError

CURVE_KEY = ec.generate_private_key(ec.SECP256R1())


def pem(key: object) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[attr-defined]


def test_the_first_start_makes_a_key_that_later_ones_find(tmp_path):
    old = os.umask(0o077)
    try:
        key = open_key(tmp_path / "audit.key", may_create=True)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "audit.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "audit.pub").stat().st_mode) == 0o644
    again = open_key(tmp_path / "audit.key", may_create=False)
    assert show_key(again.public) == show_key(key.public) == show_key(load_public_key(tmp_path / "audit.pub"))
    assert sorted(os.listdir(tmp_path)) == ["audit.key", "audit.pub"]


def test_a_log_whose_key_is_gone_does_not_get_a_new_one(tmp_path):
    with pytest.raises(StateError, match="is missing"):
        open_key(tmp_path / "audit.key", may_create=False)
    assert os.listdir(tmp_path) == []


def test_a_public_half_that_is_gone_is_written_again(tmp_path):
    open_key(tmp_path / "audit.key", may_create=True)
    (tmp_path / "audit.pub").unlink()
    key = open_key(tmp_path / "audit.key", may_create=False)
    assert show_key(load_public_key(tmp_path / "audit.pub")) == show_key(key.public)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "damaged"),
        (b"x" * 100_000, "no Ed25519"),
        (pem(CURVE_KEY), "no Ed25519"),
    ],
)
def test_a_damaged_key_is_no_key(tmp_path, data, message):
    path = tmp_path / "audit.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(StateError, match=message):
        open_key(path, may_create=True)
    assert path.read_bytes() == data


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    path = tmp_path / "audit.key"
    open_key(path, may_create=True)
    path.chmod(mode)
    with pytest.raises(StateError, match="others may have read it"):
        open_key(path, may_create=False)


def test_a_link_in_the_keys_place_is_refused(tmp_path):
    open_key(tmp_path / "other.key", may_create=True)
    (tmp_path / "audit.key").symlink_to(tmp_path / "other.key")
    with pytest.raises(StateError, match="cannot be read"):
        open_key(tmp_path / "audit.key", may_create=True)


def test_a_directory_in_the_keys_place_is_refused(tmp_path):
    (tmp_path / "audit.key").mkdir()
    with pytest.raises(StateError):
        open_key(tmp_path / "audit.key", may_create=True)


def test_anothers_public_half_is_refused(tmp_path):
    open_key(tmp_path / "audit.key", may_create=True)
    other = Ed25519PrivateKey.generate().public_key()
    (tmp_path / "audit.pub").write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(StateError, match="not the public half"):
        open_key(tmp_path / "audit.key", may_create=False)
    (tmp_path / "audit.pub").write_bytes(b"nonsense")
    with pytest.raises(StateError, match="no public key"):
        open_key(tmp_path / "audit.key", may_create=False)


def test_a_place_that_takes_no_key_says_so(tmp_path):
    with pytest.raises(StateError, match="cannot be made"):
        open_key(tmp_path / "missing" / "audit.key", may_create=True)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x" * 5000, b"ssh-ed25519 AAAA",
        CURVE_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ],
)  # fmt: skip
def test_what_is_no_public_key_is_a_usage_error(tmp_path, data):
    (tmp_path / "audit.pub").write_bytes(data)
    with pytest.raises(ConfigurationError):
        load_public_key(tmp_path / "audit.pub")


def test_a_public_key_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_public_key(tmp_path / "audit.pub")
