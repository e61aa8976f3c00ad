"""Generated parts of the pages are what the code makes now."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.authz.reasons import Reason
from sidecar.settings import VARIABLES
from tests.repo import generate


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.name)
def test_the_page_is_up_to_date(page: Path) -> None:
    assert page.read_text() == generate.regenerate(page.read_text()), "run: make docs"


@pytest.mark.parametrize(("name", "page"), [("environment", "configuration.md"), ("reasons", "reasons.md")])
def test_the_part_is_where_readers_look_for_it(name: str, page: str) -> None:
    text = (generate.ROOT / "docs" / page).read_text()
    assert text.count(f"<!-- {name}:begin -->") == 1 and text.count(f"<!-- {name}:end -->") == 1


def test_nothing_is_missing_from_the_pages() -> None:
    configuration = (generate.ROOT / "docs" / "configuration.md").read_text()
    reasons = (generate.ROOT / "docs" / "reasons.md").read_text()
    assert [variable.name for variable in VARIABLES if f"| `{variable.name}` |" not in configuration] == []
    assert [reason for reason in Reason if f"`{reason.value}`" not in reasons] == []


def test_a_stale_page_is_noticed_and_its_surroundings_stay() -> None:
    stale = "before\n<!-- environment:begin -->\nold\n<!-- environment:end -->\nafter\n"
    fresh = generate.regenerate(stale)
    assert fresh != stale and fresh == generate.regenerate(fresh)
    assert fresh.startswith("before\n<!-- environment:begin -->\n| variable") and fresh.endswith(
        "-->\nafter\n"
    )


def test_check_writes_nothing_and_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    page = tmp_path / "README.md"
    page.write_text("<!-- environment:begin -->\n<!-- environment:end -->\n")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main(["--check"]) == 1
    assert page.read_text() == "<!-- environment:begin -->\n<!-- environment:end -->\n"
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
