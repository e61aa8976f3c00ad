"""Checkpoints kept elsewhere: what they say holds even against whoever owns the machine of the log. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sidecar.audit.chain import Checkpoint, key_id, read_checkpoint
from sidecar.errors import VerificationError

_NOTHING: Final[Mapping[int, Checkpoint]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Anchors:
    """Proven checkpoints by log and place in its chain. ``foreign`` counts those of other keys."""

    logs: Mapping[str, Mapping[int, Checkpoint]] = field(default_factory=dict)
    foreign: int = 0

    def of_log(self, log: str) -> Mapping[int, Checkpoint]:
        """The anchors of one log, by ``seq``."""
        return self.logs.get(log, _NOTHING)


def read_anchors(lines: Iterable[bytes], key: Ed25519PublicKey) -> Anchors:
    """The anchors among ``lines``: checkpoint lines as the log has them, between any others.

    So a captured standard output is a file of anchors as it is. Raises VerificationError when a checkpoint that
    names ``key`` is not signed by it, when two of one place differ, and when there is none of this key.
    """
    logs: dict[str, dict[int, Checkpoint]] = {}
    foreign = 0
    ours = f'"key":"{key_id(key)}"'.encode()
    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip(b"\r\n")
        if b'"event":"checkpoint"' not in line:
            continue
        if ours not in line:
            foreign += 1
            continue
        try:
            checkpoint = read_checkpoint(line, key)
        except VerificationError as exc:
            raise VerificationError(f"line {number} of the anchors: {exc}") from exc
        known = logs.setdefault(checkpoint.log, {}).setdefault(checkpoint.seq, checkpoint)
        if known.line != checkpoint.line:
            raise VerificationError(
                f"line {number} of the anchors: two signed checkpoints for one place (seq {checkpoint.seq}) of "
                f"log {checkpoint.log}: somebody with the log's key wrote two histories"
            )
    if not logs:
        raise VerificationError(f"the anchors hold no checkpoint of the key {key_id(key)}")
    return Anchors(logs, foreign)
