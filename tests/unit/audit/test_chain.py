from __future__ import annotations

import hashlib
import json

import pytest

from sidecar.audit.chain import (
    hash_line,
    key_id,
    looks_like_checkpoint,
    read_checkpoint,
    read_head,
    show_key,
    write_checkpoint,
)
from sidecar.audit.record import encode_body, encode_event, format_ts
from sidecar.errors import VerificationError
from tests.fakes.audit import LOG, WALL_S, make_key

HEAD = "ab" * 32


def checkpoint(**changes: object) -> bytes:
    said = {"log": LOG, "size": 41, "head": HEAD, "entries": 3, "ts": format_ts(WALL_S)} | changes
    return write_checkpoint(signer=make_key(), **said)


def test_a_hash_covers_the_exact_bytes_of_the_line():
    assert hash_line(b'{"a": 1}') == hashlib.sha256(b'{"a": 1}').hexdigest()
    assert hash_line(b'{"a": 1}') != hash_line(b'{"a":1}')


def test_a_checkpoint_says_what_it_signs_and_proves_it():
    line = checkpoint()
    record = json.loads(line)
    assert list(record) == [
        "v", "seq", "event", "ts", "log", "size", "head", "entries", "key", "signature", "prev",
    ]  # fmt: skip
    assert (record["seq"], record["prev"], record["key"]) == (42, HEAD, key_id(make_key().public))
    proven = read_checkpoint(line, make_key().public)
    assert (proven.log, proven.size, proven.seq, proven.head, proven.entries) == (LOG, 41, 42, HEAD, 3)
    assert proven.line == line


def test_the_signature_is_over_a_message_of_its_own_kind():
    record = json.loads(checkpoint())
    import base64

    message = f"sidecar audit checkpoint v1\n{LOG}\n41\n{HEAD}\n3\n{format_ts(WALL_S)}\n".encode()
    make_key().public.verify(base64.b64decode(record["signature"]), message)


def test_every_changed_byte_of_a_checkpoint_is_found():
    line = checkpoint()
    for place in range(len(line)):
        for flip in (0x01, 0x20, 0x80):
            changed = line[:place] + bytes([line[place] ^ flip]) + line[place + 1 :]
            with pytest.raises(VerificationError):
                read_checkpoint(changed, make_key().public)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line.replace(b'"size":41', b'"size":40'), "changed"),
        (lambda line: line.replace(b'"entries":3', b'"entries":4'), "signature does not fit"),
        (lambda line: line.replace(b'"entries":3', b'"entries":3.0'), "members"),
        (lambda line: line.replace(b'"entries":3', b'"entries":-3'), "wrong form"),
        (lambda line: line.replace(b'{"v":1', b'{"v": 1'), "changed"),
        (lambda line: line.replace(b'{"v":1', b'{"v":1,"v":1'), "changed"),
        (lambda line: line.replace(b'"prev"', b'"more":1,"prev"'), "members"),
        (lambda line: line + b" ", "changed"),
        (lambda line: line.replace(b"checkpoint", b"checkpoinT"), "wrong form"),
        (lambda line: line.replace(HEAD.encode(), HEAD.upper().encode()), "wrong form"),
        (lambda line: b"[" * 5000, "members"),
        (lambda line: b"\xff", "members"),
        (lambda line: b"", "members"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_as_it_was_written_says_how(change, message):
    with pytest.raises(VerificationError, match=message):
        read_checkpoint(change(checkpoint()), make_key().public)


def test_another_keys_checkpoint_proves_nothing():
    with pytest.raises(VerificationError, match="another key"):
        read_checkpoint(checkpoint(), make_key(2).public)
    # A forger may claim our key; then the signature tells.
    forged = write_checkpoint(LOG, 41, HEAD, 3, format_ts(WALL_S), _Pretender())
    with pytest.raises(VerificationError, match="signature"):
        read_checkpoint(forged, make_key().public)


class _Pretender:
    key_id = make_key().key_id

    def sign(self, message: bytes) -> bytes:
        return make_key(2).sign(message)


@pytest.mark.parametrize("signature", ["", "AA==", "!", "A" * 88])
def test_a_signature_of_another_form_is_none(signature):
    class Signer:
        key_id = make_key().key_id

        def sign(self, message: bytes) -> bytes:
            return b""

    line = write_checkpoint(LOG, 41, HEAD, 3, format_ts(WALL_S), Signer())
    with pytest.raises(VerificationError, match="signature"):
        read_checkpoint(
            line.replace(b'"signature":""', b'"signature":"%s"' % signature.encode()), make_key().public
        )


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{}", b"[]", b"null", b"\xff", b'{"v":1}', b"[" * 100_000,
        b'{"v":1,"seq":"1","event":"call","ts":"","prev":null}',
        b'{"v":1,"seq":1.0,"event":"call","ts":"","prev":null}',
        b'{"v":1,"seq":1,"event":"call","ts":"","prev":null} {}',
        b'{"v":1,"seq":1,"event":"call","ts":"","prev":null',
    ],
)  # fmt: skip
def test_what_is_no_line_has_no_head(line):
    with pytest.raises(VerificationError, match="not a JSON object"):
        read_head(line)


def test_keys_show_their_public_half_only():
    key = make_key()
    assert show_key(key.public) and "object at" in repr(key)
    assert len(key.key_id) == 16


def test_a_checkpoint_is_known_by_its_members_and_text_cannot_fake_them():
    assert looks_like_checkpoint(checkpoint().replace(b"checkpoint", b"chickpoint"))
    text = '"signature":"","size":1,"head":""'
    line = encode_event(1, "admin", format_ts(WALL_S), encode_body("admin", {"text": text, text: 1}), None)
    assert not looks_like_checkpoint(line)
