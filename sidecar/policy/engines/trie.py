"""Path patterns as a tree of segments: a lookup costs what the path asks for, however many patterns there
are.

Pure. Which of several patterns is the more specific one is decided here, for all engines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from sidecar.identity.route import PathPattern, Segments
from sidecar.policy.model import ANY_METHOD, Rule

T = TypeVar("T")

Rank = tuple[int, ...]
_LITERAL, _ONE, _ANY_NUMBER = range(3)


@dataclass(frozen=True, slots=True)
class Hit(Generic[T]):
    """A pattern that covers a path: its rank (less is more specific), the order and value it came with."""

    rank: Rank
    order: int
    pattern: PathPattern
    value: T


class _Node(Generic[T]):
    """Begins with these segments. ``ends``: patterns that end here; ``opens``: those with ``**`` here."""

    __slots__ = ("ends", "literals", "one", "opens")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.one: _Node[T] | None = None
        self.ends: dict[str, list[Hit[T]]] = {}
        self.opens: dict[str, list[Hit[T]]] = {}


class Trie(Generic[T]):
    """Rules' methods and patterns, each with a value. Grows by :meth:`add`; questions do not change it."""

    __slots__ = ("_filled", "_root")

    def __init__(self) -> None:
        self._filled = False
        self._root: _Node[T] = _Node()

    def add(self, rule: Rule, order: int, value: T) -> None:
        """Adds every pattern of ``rule`` for each of its methods."""
        self._filled = True
        for pattern in rule.patterns:
            node = self._root
            for segment in pattern.segments:
                if segment == "*":
                    node.one = node.one or _Node()
                    node = node.one
                else:
                    node = node.literals.setdefault(segment, _Node())
            hit = Hit(rank_of(pattern), order, pattern, value)
            place = node.opens if pattern.is_open else node.ends
            for method in rule.methods:
                place.setdefault(method, []).append(hit)

    def __bool__(self) -> bool:
        """Whether anything was added."""
        return self._filled

    def find(self, method: str, segments: Segments) -> list[Hit[T]]:
        """All that covers this call, in no order. Looks only at patterns that begin as the path does."""
        hits: list[Hit[T]] = []
        if not self:
            return hits
        nodes = [self._root]
        for segment in segments:
            following = []
            for node in nodes:
                if node.opens:
                    _collect(node.opens, method, hits)
                literal = node.literals.get(segment)
                if literal is not None:
                    following.append(literal)
                if node.one is not None and segment:
                    following.append(node.one)
            if not following:
                return hits
            nodes = following
        for node in nodes:
            _collect(node.ends, method, hits)
            _collect(node.opens, method, hits)
        return hits


def rank_of(pattern: PathPattern) -> Rank:
    """Orders patterns that cover one path: from the left, a literal before ``*`` before ``**``."""
    rank = [_ONE if segment == "*" else _LITERAL for segment in pattern.segments]
    return (*rank, _ANY_NUMBER) if pattern.is_open else tuple(rank)


def _collect(place: dict[str, list[Hit[T]]], method: str, hits: list[Hit[T]]) -> None:
    if not place:
        return
    found = place.get(method)
    if found is not None:
        hits += found
    found = place.get(ANY_METHOD)
    if found is not None:
        hits += found
