"""What the policy step says about one call, whatever engine says it. A value; pure."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Judgement(NamedTuple):  # a tenth of a frozen dataclass's price, and one is made for every new path
    """``permit``, or why not: ``scope`` (no rule permits it) or ``rule`` (a rule denies it).

    ``rule`` says where the deciding rule stands in the policy, ``route`` is its pattern, ``scope`` its scope;
    all None where none matched. ``is_final``: no grant lifts a refusal of this call, by whatever step.
    ``streaming`` and ``audit_strict`` hold for a permit.
    """

    answer: Literal["permit", "scope", "rule"]
    rule: str | None = None
    route: str | None = None
    scope: str | None = None
    is_final: bool = False
    streaming: bool = False
    audit_strict: bool = False
