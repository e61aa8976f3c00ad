"""The question "what would become of this call?" as operators ask it: a value and its JSON. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from sidecar.errors import ConfigurationError, IdentityError
from sidecar.identity.spiffe_id import SpiffeId, parse_workload_id

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_REQUIRED: Final = ("as", "method", "path")
_KNOWN: Final = (*_REQUIRED, "purpose")


@dataclass(frozen=True, slots=True)
class Question:
    """``path`` is a request target as a client would send it, not canonical yet; it may have a query."""

    caller: SpiffeId
    method: str
    path: str
    purpose: str | None = None

    def as_json(self) -> bytes:
        """What :func:`parse_question` reads."""
        members = {"as": str(self.caller), "method": self.method, "path": self.path}
        if self.purpose is not None:
            members["purpose"] = self.purpose
        return json.dumps(members).encode()


def build_question(caller: str, method: str, path: str, purpose: str | None = None) -> Question:
    """A question of texts. Raises :class:`ConfigurationError` if one of them cannot be meant."""
    try:
        spiffe_id = parse_workload_id(caller)
    except IdentityError as exc:
        raise ConfigurationError(f"the caller: {exc}") from exc
    if _METHOD.fullmatch(method) is None:
        raise ConfigurationError(f"{method[:64]!r} is not a method, such as GET")
    if method != method.upper():
        raise ConfigurationError(f"methods are case-sensitive; did you mean {method.upper()}?")
    if not path.isascii():
        raise ConfigurationError(f"{path[:200]!r} is not a path as it is sent; escape what is not ASCII")
    return Question(spiffe_id, method, path, purpose)


def parse_question(data: bytes) -> Question:
    """The question that JSON asks: ``as``, ``method``, ``path``, and perhaps ``purpose``, all of them texts.

    Raises :class:`ConfigurationError` for anything else, unknown and doubled members too.
    """
    try:
        members = json.loads(data, object_pairs_hook=_build_members)
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"the question is not JSON as it should be: {exc}") from exc
    if not isinstance(members, dict):
        raise ConfigurationError("the question is not a JSON object")
    unknown = [name for name in members if name not in _KNOWN]
    missing = [name for name in _REQUIRED if name not in members]
    if unknown or missing:
        raise ConfigurationError(f"the question has the members {', '.join(_REQUIRED)} and perhaps purpose")
    purpose = members.get("purpose")
    caller, method, path = (members[name] for name in _REQUIRED)
    if not all(isinstance(text, str) for text in (caller, method, path, "" if purpose is None else purpose)):
        raise ConfigurationError("the members of the question are texts")
    return build_question(caller, method, path, purpose)


def _build_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands there twice")
    return members
