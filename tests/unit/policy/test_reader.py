from __future__ import annotations

import pytest

from sidecar.errors import PolicyError
from sidecar.policy.document import Node, Problems, Table, read_document
from sidecar.policy.reader import MAX_SUGGESTIONS, Reader
from sidecar.policy.values import parse_name


class Reading:
    """A reader over one document, and the problems that it noted."""

    def __init__(self, text: str) -> None:
        self._problems = Problems("f")
        root = read_document(text.encode(), self._problems)
        assert root is not None
        self.root: Node = root
        self.reader = Reader(self._problems)

    @property
    def problems(self) -> list[str]:
        try:
            self._problems.raise_any()
        except PolicyError as exc:
            return list(exc.problems)
        return []


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("{a: 1, b: 2}", []),
        ("{a: 1}", []),
        ("{b: 1}", ["f:1:1: it needs the key 'a'"]),
        ("{a: 1, bb: 1}", ["f:1:8: unknown key 'bb' in it; did you mean b?"]),
        ("{a: 1, zzz: 1}", ["f:1:8: unknown key 'zzz' in it; known are a, b"]),
        ("[a]", ["f:1:1: it must be a mapping, not a list"]),
        ("a", ["f:1:1: it must be a mapping, not a text"]),
        ("~", ["f:1:1: it must be a mapping, not nothing"]),
    ],
)
def test_tables(text, problems):
    reading = Reading(text)
    entries = reading.reader.table(reading.root, "it", required=("a",), optional=("b",))
    assert reading.problems == problems
    assert (entries is None) == (not isinstance(reading.root, Table))


@pytest.mark.parametrize(
    ("text", "values", "problems"),
    [
        ("[x, y]", ("x", "y"), []),
        ("[]", (), ["f:1:1: it is an empty list; name something, or remove the key if it is optional"]),
        ("[x, x]", ("x",), ["f:1:5: it names 'x' twice; remove one"]),
        ("[x, [y]]", ("x",), ["f:1:5: it must be a text, not a list"]),
        ("[x, ]", ("x",), []),
        ("[~]", (), ["f:1:2: it has no value"]),
        ("x", (), ["f:1:1: it must be a list, not a text"]),
        ("{x: y}", (), ["f:1:1: it must be a list, not a mapping"]),
    ],
)
def test_lists(text, values, problems):
    reading = Reading(text)
    assert reading.reader.values(reading.root, "it", parse_name) == values
    assert reading.problems == problems


def test_a_missing_optional_key_is_no_mistake():
    reading = Reading("a")
    assert reading.reader.value(None, "it", parse_name) is None
    assert reading.reader.values(None, "it", parse_name) == ()
    assert reading.problems == []


def test_names():
    reading = Reading("{a: 1, ' b': 2, c: 3}")
    assert [name for name, _ in reading.reader.named(reading.root, "it", parse_name)] == ["a", "c"]
    assert len(reading.problems) == 1 and reading.problems[0].startswith("f:1:8: it: ' b' is not a name")
    reading = Reading("{}")
    assert list(reading.reader.named(reading.root, "it", parse_name)) == []
    assert reading.problems == ["f:1:1: it is empty"]


def test_what_was_refused_already_is_not_told_twice():
    problems = Problems("f")
    root = read_document(b"a: *x", problems)
    assert isinstance(root, Table)
    reader = Reader(problems)
    reader.value(root.entries["a"], "it", parse_name)
    reader.items(root.entries["a"], "it")
    reader.table(root.entries["a"], "it")
    with pytest.raises(PolicyError) as refusal:
        problems.raise_any()
    assert len(refusal.value.problems) == 1


def test_hints_are_limited_in_number():
    """Ten thousand misspelt names among thousands must not take minutes."""
    reader = Reading("a").reader
    names = [f"scope-{number}:read" for number in range(1000)]
    assert reader.suggest("scope-7:raed", names) == "; did you mean scope-7:read?"
    hints = [reader.suggest("scope-7:raed", names[:20]) for _ in range(MAX_SUGGESTIONS)]
    assert hints[0] and hints[-1] == ""
    assert reader.suggest("a", ["b"]) == "; known are b"
