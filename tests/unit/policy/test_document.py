from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import PolicyError
from sidecar.policy import document
from sidecar.policy.document import (
    MAX_DEPTH,
    MAX_PROBLEMS,
    Listing,
    Mark,
    Problems,
    Table,
    Text,
    read_document,
)

PARSERS = [parser for parser in (getattr(yaml, "CSafeLoader", None), yaml.SafeLoader) if parser is not None]


@pytest.fixture(params=PARSERS, ids=lambda parser: parser.__name__)
def parser(request, monkeypatch):
    """Both of PyYAML's parsers: not every platform has the C one."""
    monkeypatch.setattr(document, "_Parser", request.param)


def problems_of(data: bytes) -> list[str]:
    problems = Problems("f")
    read_document(data, problems)
    try:
        problems.raise_any()
    except PolicyError as exc:
        return list(exc.problems)
    return []


@pytest.mark.usefixtures("parser")
def test_scalars_stay_texts_with_their_places():
    problems = Problems("f")
    root = read_document(b"a: no\nb: [0777, '1:30', 2027-12-31]\nc:\n", problems)
    problems.raise_any()
    assert isinstance(root, Table) and list(root.entries) == ["a", "b", "c"]
    assert root.entries["a"] == Text("no", Mark(1, 4))
    numbers = root.entries["b"]
    assert isinstance(numbers, Listing)
    assert [item.text for item in numbers.items if isinstance(item, Text)] == ["0777", "1:30", "2027-12-31"]
    assert numbers.items[1].at == Mark(2, 11)
    assert isinstance(root.entries["c"], Text) and root.entries["c"].is_nothing
    assert root.places["b"] == Mark(2, 1)


@pytest.mark.parametrize(
    ("text", "is_nothing"), [("~", True), ("null", True), ("'null'", False), ('""', False)]
)
def test_nothing_is_nothing_only_without_quotes(text, is_nothing):
    root = read_document(f"a: {text}".encode(), Problems("f"))
    assert isinstance(root, Table)
    value = root.entries["a"]
    assert isinstance(value, Text) and value.is_nothing is is_nothing


REFUSED = [
    (b"", "f:1:1: the file is empty"),
    (b"\n# only a remark\n", "f:1:1: the file is empty"),
    (b"a: 1\nb: 2\na: 3", "f:3:1: the key 'a' stands here twice, first in line 1"),
    (b"{a: {b: 1, c: 2, b: 3}}", "f:1:18: the key 'b' stands here twice"),
    (b"a: 1\n'a': 2", "f:2:1: the key 'a' stands here twice"),
    (b"a: &x 1", "f:1:4: the anchor &x is refused"),
    (b"a: &x [1]", "f:1:4: the anchor &x is refused"),
    (b"a: *x", "f:1:4: the alias *x is refused"),
    (b"a: [*]", "quote a literal '*'"),
    (b"*x : 1", "f:1:1: the alias *x is refused"),
    (b"a: !!int 3", "f:1:4: the tag 'tag:yaml.org,2002:int' is refused"),
    (b"a: !!python/object/apply:os.system [x]", "f:1:4: the tag"),
    (b"a: ! x", "f:1:4: the tag '!' is refused"),
    (b"<<: {a: 1}", "f:1:1: merge keys (<<) are refused"),
    (b"a: 1\n---\nb: 2", "f:2:1: a second document begins here"),
    (b"--- a\n--- b", "a second document begins here"),
    (b"%YAML 1.1\n---\na: 1", "directives (%YAML, %TAG) are refused"),
    (b"%TAG ! tag:x,2000:\n---\na: 1", "directives (%YAML, %TAG) are refused"),
    (b"[a]: 1", "f:1:1: a key must be a text"),
    (b"? {a: b}\n: 1", "f:1:3: a key must be a text"),
    (b"~: 1", "f:1:1: a key must be a text"),
    (b"a: 'x", "this is not YAML"),
    (b"a:\n\t- b", "f:2:1: this is not YAML"),
    (b'a: "\\U00110000"', "this is not YAML"),
    (b"a: b: c", "this is not YAML"),
    (b"a: ]", "this is not YAML"),
    (b"a: 1\nb: \xff", "f:2:4: the file is not UTF-8"),
    ("a: 1".encode("utf-16"), "f:1:1: the file is not UTF-8"),
    (b"a: 1\r\nb: x\x00", "f:2:5: the character U+0000 has no place"),
    (b"a: \x1b[2J", "f:1:4: the character U+001B has no place"),
    ("a: x\u202eb".encode(), "f:1:5: the character U+202E has no place"),
    ("a: x\ufeffb".encode(), "f:1:5: the character U+FEFF has no place"),
]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(("data", "problem"), REFUSED)
def test_what_is_refused(data, problem):
    (only,) = problems_of(data)
    assert problem in only and only.startswith("f:") and only.isprintable()


@pytest.mark.usefixtures("parser")
def test_a_byte_order_mark_in_front_is_no_mistake():
    assert problems_of(b"\xef\xbb\xbfa: 1") == []
    assert problems_of(b"\xef\xbb\xbfa: 1\na: 2")[0].startswith("f:2:1: ")


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("bracket", [b"[", b"{a: ", b"- ", b"? ", b"[{a: "])
def test_a_hundred_thousand_brackets_are_one_problem(bracket):
    (only,) = problems_of(bracket * 100_000)
    assert only.endswith(f"nested more than {MAX_DEPTH} levels deep")


@pytest.mark.usefixtures("parser")
def test_depth_is_allowed_up_to_the_limit():
    assert problems_of(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) == []
    assert len(problems_of(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))) == 1


def test_a_large_file_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(document, "MAX_FILE_BYTES", 10)
    assert problems_of(b"a: 12345678") == ["f:1:1: the file has more than 10 bytes; split what it describes"]
    assert problems_of(b"a: 1234567") == []


@pytest.mark.usefixtures("parser")
def test_all_mistakes_of_form_are_told_in_the_order_of_the_file():
    found = problems_of(b"a: &x 1\na: !t 2\nb: *x\n<<: 1\n")
    assert [problem.split(": ")[0] for problem in found] == ["f:1:4", "f:2:1", "f:2:4", "f:3:4", "f:4:1"]


def test_endless_mistakes_are_counted():
    found = problems_of(b"a: 1\n" * (MAX_PROBLEMS + 8))
    assert len(found) == MAX_PROBLEMS + 1 and found[-1] == "f: 7 more problems are not shown"


@given(st.binary(max_size=60) | st.text("abc:-[]{}&*!|>'\"%@?#\n\t ~<,", max_size=60).map(str.encode))
def test_any_bytes_give_nodes_or_problems_and_never_an_exception(data):
    for parser in PARSERS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(document, "_Parser", parser)
            problems = Problems("f")
            root = read_document(data, problems)
            try:
                problems.raise_any()
            except PolicyError as exc:
                assert exc.problems
            else:
                assert root is not None
