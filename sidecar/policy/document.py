"""A YAML file as plain nodes with positions, read more strictly than YAML itself. Pure.

YAML loaders keep the last of two equal keys, follow aliases, turn ``no`` into False, and the C one dies of
deep nesting. So none is used: this walks parse events with limits of its own, refuses whatever gives one text
a second meaning (aliases, anchors, tags, merge keys, directives, several documents, doubled keys), and leaves
every scalar a text, whose meaning its field decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import yaml

from sidecar.errors import PolicyError

MAX_FILE_BYTES: Final = 32 << 20
MAX_DEPTH: Final = 64
MAX_PROBLEMS: Final = 1000

# What YAML calls printable, but for line separators, byte order marks and the marks that turn the direction
# of writing: they could hide a line's meaning from the eye of a reviewer.
_UNPRINTABLE = re.compile(
    "[^\t\n\r -~\x85\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})
# Only their event parser is used. The C one is ten times as fast, and not there on every platform.
_Parser: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Mark(NamedTuple):
    """Where something stands; both count from 1, columns in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar as written, quotes removed. ``is_nothing``: it is not quoted and YAML would call it null."""

    text: str
    at: Mark
    is_nothing: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """A sequence."""

    items: tuple[Node, ...]
    at: Mark


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping: each key's text with its value and its place. Of doubled keys the first stays."""

    entries: dict[str, Node]
    places: dict[str, Mark]
    at: Mark


@dataclass(frozen=True, slots=True)
class Refused:
    """Stands where something was that is already among the problems."""

    at: Mark


Node = Text | Listing | Table | Refused


class Problems:
    """Mistakes with their places, collected so that one run shows all of them, in the order of the file."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: list[tuple[Mark, str]] = []

    def add(self, at: Mark, message: str) -> None:
        """One mistake. ``message`` says what was wrong and what to do."""
        self._found.append((at, message))

    def raise_any(self) -> None:
        """Raises :class:`PolicyError` if there are any; beyond MAX_PROBLEMS only their number is told."""
        if not self._found:
            return
        self._found.sort(key=lambda found: found[0])
        lines = [
            f"{self._name}:{at.line}:{at.column}: {message}" for at, message in self._found[:MAX_PROBLEMS]
        ]
        if len(self._found) > MAX_PROBLEMS:
            lines.append(f"{self._name}: {len(self._found) - MAX_PROBLEMS} more problems are not shown")
        raise PolicyError(lines)


def read_document(data: bytes, problems: Problems) -> Node | None:
    """The one document in ``data``. Mistakes go into ``problems``; None if nothing can be made of it.

    Never raises for any input, and needs no recursion: 100,000 brackets are one problem.
    """
    if len(data) > MAX_FILE_BYTES:
        problems.add(Mark(1, 1), f"the file has more than {MAX_FILE_BYTES} bytes; split what it describes")
        return None
    text = _decode(data, problems)
    if text is None:
        return None
    builder = _Builder(problems)
    try:
        for event in _events(text):
            if not builder.take(event):
                return None
    except yaml.MarkedYAMLError as exc:
        at = exc.problem_mark or exc.context_mark
        problems.add(_mark(at) if at is not None else Mark(1, 1), _explain(exc))
        return None
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: the pure parser, of an escape beyond Unicode
        problems.add(Mark(1, 1), f"this is not YAML: {' '.join(str(exc).split())}")
        return None
    if builder.root is None:
        problems.add(Mark(1, 1), "the file is empty; a policy starts with: version: 1")
    return builder.root


def _decode(data: bytes, problems: Problems) -> str | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        before = data[: exc.start].decode("utf-8-sig")
        problems.add(_place(before, len(before)), "the file is not UTF-8; save it as UTF-8")
        return None
    odd = _UNPRINTABLE.search(text)
    if odd is not None:
        problems.add(
            _place(text, odd.start()),
            f"the character U+{ord(odd[0]):04X} has no place in a policy; remove it",
        )
        return None
    return text


def _events(text: str) -> Iterator[Any]:
    parser = _Parser(text)
    try:
        while parser.check_event():
            yield parser.get_event()
    finally:
        parser.dispose()


class _Open:
    """A mapping or sequence whose end has not come yet; ``key`` is one that waits for its value."""

    __slots__ = ("at", "entries", "is_table", "items", "key", "places")

    def __init__(self, at: Mark, *, is_table: bool) -> None:
        self.at = at
        self.is_table = is_table
        self.items: list[Node] = []
        self.entries: dict[str, Node] = {}
        self.places: dict[str, Mark] = {}
        self.key: Node | None = None


class _Builder:
    """Makes nodes of events with a stack of its own."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._stack: list[_Open] = []
        self.root: Node | None = None

    def take(self, event: Any) -> bool:
        """One event; False when the file is refused here and now."""
        match event:
            case yaml.AliasEvent():
                hint = "write the value out, or quote a literal '*'"
                self._put(Refused(self._refuse(event, f"the alias *{event.anchor} is refused; {hint}")))
            case yaml.ScalarEvent():
                self._check_properties(event)
                at = _mark(event.start_mark)
                self._put(Text(event.value, at, not event.style and event.value in _NOTHING))
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._check_properties(event)
                return self._open(event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._close()
            case yaml.DocumentStartEvent():
                return self._start_document(event)
        return True

    def _start_document(self, event: Any) -> bool:
        if self.root is not None:
            self._refuse(event, "a second document begins here; a policy is one document")
            return False
        if event.version is not None or event.tags:
            self._refuse(event, "directives (%YAML, %TAG) are refused; remove them")
        return True

    def _open(self, event: Any) -> bool:
        if len(self._stack) >= MAX_DEPTH:
            self._refuse(event, f"nested more than {MAX_DEPTH} levels deep")
            return False
        is_table = isinstance(event, yaml.MappingStartEvent)
        self._stack.append(_Open(_mark(event.start_mark), is_table=is_table))
        return True

    def _close(self) -> None:
        done = self._stack.pop()
        if done.is_table:
            self._put(Table(done.entries, done.places, done.at))
        else:
            self._put(Listing(tuple(done.items), done.at))

    def _put(self, node: Node) -> None:
        if not self._stack:
            self.root = node
            return
        top = self._stack[-1]
        if not top.is_table:
            top.items.append(node)
        elif top.key is None:
            top.key = node
        else:
            key, top.key = top.key, None
            self._put_entry(top, key, node)

    def _put_entry(self, table: _Open, key: Node, value: Node) -> None:
        if isinstance(key, Refused):
            return
        if not isinstance(key, Text) or key.is_nothing:
            self._problems.add(key.at, "a key must be a text")
        elif key.text == "<<":
            self._problems.add(key.at, "merge keys (<<) are refused; write the keys out")
        elif key.text in table.entries:
            first = table.places[key.text]
            self._problems.add(
                key.at, f"the key {key.text!r} stands here twice, first in line {first.line}; remove one"
            )
        else:
            table.entries[key.text] = value
            table.places[key.text] = key.at

    def _check_properties(self, event: Any) -> None:
        if event.anchor is not None:
            self._refuse(event, f"the anchor &{event.anchor} is refused; remove it")
        if event.tag is not None:
            self._refuse(event, f"the tag {event.tag!r} is refused; remove it")

    def _refuse(self, event: Any, message: str) -> Mark:
        at = _mark(event.start_mark)
        self._problems.add(at, message)
        return at


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)


def _place(text: str, offset: int) -> Mark:
    """Line and column of a character, lines ended as YAML ends them."""
    before = re.split("\r\n|[\n\r\x85]", text[:offset])
    return Mark(len(before), len(before[-1]) + 1)


def _explain(exc: yaml.MarkedYAMLError) -> str:
    said = ", ".join(part for part in (exc.context, exc.problem) if part)
    hint = "; quote a literal '*' or '&'" if "alias" in said or "anchor" in said else ""
    return f"this is not YAML: {said}{hint}"
