"""Typed reading of a document's nodes: each mistake is noted with its place, and reading goes on. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator
from typing import Final, TypeVar

from sidecar.errors import ConfigurationError
from sidecar.policy.document import Listing, Mark, Node, Problems, Refused, Table, Text

T = TypeVar("T")

# Comparing a name with thousands of others takes milliseconds: a file full of unknown names gets few hints.
MAX_SUGGESTIONS: Final = 100

_WORDS = {Text: "a text", Listing: "a list", Table: "a mapping"}


class Reader:
    """What reads a policy's parts. Every method gives None (or nothing) where a problem was noted."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._suggestions_left = MAX_SUGGESTIONS

    def refuse(self, at: Mark, message: str) -> None:
        """Notes a mistake."""
        self._problems.add(at, message)

    def table(
        self, node: Node, what: str, *, required: Collection[str] = (), optional: Collection[str] = ()
    ) -> dict[str, Node] | None:
        """The entries of a mapping with these keys and no others; a missing one is noted and absent."""
        if not isinstance(node, Table):
            self._expected(node, what, "a mapping")
            return None
        known = [*required, *optional]
        for key, at in node.places.items():
            if key not in known:
                self.refuse(at, f"unknown key {key!r} in {what}{self.suggest(key, known)}")
        for key in required:
            if key not in node.entries:
                self.refuse(node.at, f"{what} needs the key {key!r}")
        return {key: value for key, value in node.entries.items() if key in known}

    def named(self, node: Node, what: str, parse_key: Callable[[str], str]) -> Iterator[tuple[str, Node]]:
        """The entries of a mapping whose keys are names; an empty one is a mistake."""
        if not isinstance(node, Table):
            self._expected(node, what, "a mapping")
            return
        if not node.entries:
            self.refuse(node.at, f"{what} is empty")
        for key, value in node.entries.items():
            try:
                yield parse_key(key), value
            except ConfigurationError as exc:
                self.refuse(node.places[key], f"{what}: {exc}")

    def items(self, node: Node, what: str) -> tuple[Node, ...]:
        """The items of a list; an empty one is a mistake."""
        if not isinstance(node, Listing):
            self._expected(node, what, "a list")
            return ()
        if not node.items:
            self.refuse(
                node.at, f"{what} is an empty list; name something, or remove the key if it is optional"
            )
        return node.items

    def value(self, node: Node | None, what: str, parse: Callable[[str], T]) -> T | None:
        """The value of a scalar; None also where there is no ``node``."""
        if node is None:
            return None
        if not isinstance(node, Text):
            self._expected(node, what, "a text")
            return None
        if node.is_nothing:
            self.refuse(node.at, f"{what} has no value")
            return None
        try:
            return parse(node.text)
        except ConfigurationError as exc:
            self.refuse(node.at, f"{what}: {exc}")
            return None

    def values(self, node: Node | None, what: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """The values of a list of scalars, each of them once; those without a mistake."""
        if node is None:
            return ()
        found: list[T] = []
        seen: set[str] = set()
        for item in self.items(node, what):
            value = self.value(item, what, parse)
            if value is None:
                continue
            assert isinstance(item, Text)
            if item.text in seen:
                self.refuse(item.at, f"{what} names {item.text!r} twice; remove one")
                continue
            seen.add(item.text)
            found.append(value)
        return tuple(found)

    def known(self, names: Collection[str] | None, what: str) -> Callable[[str], str]:
        """A parser for names that are defined elsewhere in the file; None lets all pass."""

        def parse(text: str) -> str:
            if names is not None and text not in names:
                raise ConfigurationError(f"there is no {what} {text!r}{self.suggest(text, names)}")
            return text

        return parse

    def suggest(self, text: str, known: Collection[str]) -> str:
        """The end of a message about an unknown name: what may have been meant, or what there is."""
        if self._suggestions_left > 0 and len(text) <= 200:
            self._suggestions_left -= 1
            close = difflib.get_close_matches(text, known, n=1)
            if close:
                return f"; did you mean {close[0]}?"
        return f"; known are {', '.join(known)}" if 0 < len(known) <= 12 else ""

    def _expected(self, node: Node, what: str, expected: str) -> None:
        if isinstance(node, Refused):
            return  # noted already
        got = "nothing" if isinstance(node, Text) and node.is_nothing else _WORDS[type(node)]
        self.refuse(node.at, f"{what} must be {expected}, not {got}")
