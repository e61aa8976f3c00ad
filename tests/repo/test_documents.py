"""What the documents say has to be so: links, names, commands, the drawn picture, the table of libraries."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sidecar.cli.main import command as root_command
from sidecar.settings import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "docker/*.md", "examples/**/*.md", "certs/*.md")
    for path in ROOT.glob(pattern)
)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHELL_FILES = [
    ROOT / "docker" / "Dockerfile",
    ROOT / "docker" / "compose.yaml",
    *sorted((ROOT / "examples").rglob("*.service")),
    *sorted((ROOT / "examples").rglob("*.env")),
    *sorted((ROOT / "examples").rglob("*.yaml")),
]
# Names that are ours but no settings of the sidecar, or that stand for many.
NO_SETTINGS = {"SIDECAR_REQUIRE_PEERS"}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def shell_commands(path: Path) -> Iterator[list[str]]:
    """Each simple command in the document's ``sh`` blocks, without its variables."""
    for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            command: list[str] = []
            for word in [*shlex.split(line, comments=True), ";"]:
                if word in ("&&", "||", "|", ";", "&"):
                    yield from [command] if command else []
                    command = []
                elif command or not re.match(r"export$|\w+=", word):
                    command.append(word)


def sidecar_words(words: list[str]) -> list[str] | None:
    """What follows the command's name, also where another program runs it; None if it is not there."""
    for index, word in enumerate(words):
        if word.rpartition("/")[2] == "sidecar" and words[max(index - 1, 0)] in (
            word,
            "--",
            "orders-sidecar",
        ):
            return words[index + 1 :]
    return None


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{target} in {relative(path)}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"{target} in {relative(path)}"


@pytest.mark.parametrize("path", [*DOCUMENTS, *SHELL_FILES], ids=relative)
def test_every_variable_named_is_a_setting(path: Path) -> None:
    names = {variable.name for variable in VARIABLES} | NO_SETTINGS
    for name in re.findall(r"\bSIDECAR_[A-Z_]*[A-Z]\b(?!_)", path.read_text()):
        assert name in names, f"{name} in {relative(path)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_command_shown_exists_with_its_options(path: Path) -> None:
    for line in shell_commands(path):
        words = sidecar_words(line)
        if words is None:
            continue
        found: click.Command = root_command
        while isinstance(found, click.Group) and words:
            with click.Context(found) as context:
                below = found.get_command(context, words[0])
            assert below is not None, f"sidecar {' '.join(words)} in {relative(path)}"
            found, words = below, words[1:]
        options = {opt for parameter in found.params for opt in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in options, f"{word} of {shlex.join(line)} in {relative(path)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_make_target_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {line[1] for line in shell_commands(path) if line[0] == "make" and len(line) > 1}
    named |= set(re.findall(r"`make ([a-z]+)", path.read_text()))
    assert named <= targets


@pytest.mark.parametrize("path", [*DOCUMENTS, *SHELL_FILES], ids=relative)
def test_no_machine_of_ours_shines_through(path: Path) -> None:
    text = path.read_text()
    for pattern in (
        r"/home/",
        r"/root/",
        r"/work/",
        r"\b(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d+){2,3}\b",
    ):
        assert not re.search(pattern, text), f"{pattern} in {relative(path)}"


def test_the_picture_of_the_layers_is_the_contract() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawn = text.partition("<!-- layers:begin -->\n```\n")[2].partition("```\n<!-- layers:end -->")[0]
    contract = next(
        each for each in PYPROJECT["tool"]["importlinter"]["contracts"] if each["name"] == "layers"
    )
    lines = [re.sub(r"sidecar\.|[()]", "", line) for line in contract["layers"]]
    assert drawn.splitlines() == lines


def test_every_package_stands_in_the_picture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawn = text.partition("<!-- layers:begin -->")[2].partition("<!-- layers:end -->")[0]
    names = set(re.findall(r"[a-z]+", drawn))
    packages = {path.parent.name for path in (ROOT / "sidecar").glob("*/__init__.py")}
    assert packages <= names
    rows = set(re.findall(r"`([a-z]+)`", "\n".join(re.findall(r"^\| `.*?\|", text, flags=re.MULTILINE))))
    assert packages <= rows


def test_every_library_of_the_core_has_its_reason() -> None:
    text = (ROOT / "docs" / "decisions" / "0001-libraries.md").read_text()
    rows = re.findall(r"^\| ([\w, -]+) \|", text, flags=re.MULTILINE)
    named = {name.strip().lower() for row in rows for name in row.split(",")} - {"package"}
    dependencies = {re.split(r"[^\w-]", each)[0].lower() for each in PYPROJECT["project"]["dependencies"]}
    assert named == dependencies


def test_the_readme_begins_with_the_two_commands() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line.split("#")[0].strip() for line in lines[:8] if line.startswith("make")]
    assert commands == ["make demo", "make test"]


def test_the_changelog_names_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (?:Unreleased|\d+\.\d+\.\d+)", text, flags=re.MULTILINE)


def test_the_security_page_names_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) >= 10
    for file, test in named:
        assert (ROOT / file).is_file(), file
        if test:
            source = (ROOT / file).read_text()
            assert re.search(rf"^\s*(?:async )?def {test}\(", source, flags=re.MULTILINE), f"{file}::{test}"


def test_every_row_of_the_threat_model_names_a_test_or_says_that_there_is_none() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    table = text.partition("<!-- threats:begin -->")[2].partition("<!-- threats:end -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 12
    for row in rows:
        proof = row.strip("| ").rpartition("|")[2]
        assert re.search(r"`tests/[\w/]+\.py", proof) or "not defended" in proof, row
