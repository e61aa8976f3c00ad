from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.identity.route import parse_pattern, split_path
from sidecar.policy.engines.trie import Trie, rank_of
from sidecar.policy.model import Rule

segments = st.lists(st.sampled_from(["a", "b", "*"]), max_size=4)
patterns = st.builds(
    lambda parts, end: "/" + "/".join([*parts, end]), segments, st.sampled_from(["a", "*", "**", ""])
)
paths = st.lists(st.sampled_from(["a", "b"]), max_size=5).flatmap(
    lambda parts: st.sampled_from(["/" + "/".join(parts), "/" + "/".join([*parts, ""])])
)


@given(st.lists(patterns, min_size=1, max_size=8), paths)
def test_the_tree_finds_what_each_pattern_by_itself_covers(texts, path):
    trie: Trie[int] = Trie()
    parsed = [parse_pattern(text) for text in texts]
    for place, pattern in enumerate(parsed):
        trie.add(Rule(("GET",), (pattern,)), place, place)
    found = sorted(hit.order for hit in trie.find("GET", split_path(path)))
    assert found == [place for place, pattern in enumerate(parsed) if pattern.matches(split_path(path))]
    assert trie.find("POST", split_path(path)) == []


def test_methods_are_kept_apart_and_a_star_is_all_of_them():
    trie: Trie[str] = Trie()
    pattern = parse_pattern("/x")
    trie.add(Rule(("GET", "PUT"), (pattern,)), 0, "named")
    trie.add(Rule(("*",), (pattern,)), 1, "any")
    assert {hit.value for hit in trie.find("GET", ("x",))} == {"named", "any"}
    assert {hit.value for hit in trie.find("PUT", ("x",))} == {"named", "any"}
    assert {hit.value for hit in trie.find("DELETE", ("x",))} == {"any"}


def test_specific_patterns_come_first():
    texts = ["/**", "/*/**", "/*/b", "/a/**", "/a/*", "/a/b/**", "/a/b"]
    assert sorted(texts, key=lambda text: rank_of(parse_pattern(text))) == [
        "/a/b", "/a/b/**", "/a/*", "/a/**", "/*/b", "/*/**", "/**",
    ]  # fmt: skip


def test_a_deep_path_costs_no_more_than_the_patterns_reach():
    trie: Trie[None] = Trie()
    trie.add(Rule(("GET",), (parse_pattern("/a/**"),)), 0, None)
    visited: list[str] = []

    class Counting(str):
        def __hash__(self) -> int:
            visited.append(str(self))
            return super().__hash__()

        __eq__ = str.__eq__

    path = tuple(Counting(segment) for segment in ["a", *["x"] * 5000])
    assert len(trie.find("GET", path)) == 1
    assert len(visited) == 2
