"""Every module of the package has a test file at the same path."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Where a module's test is somewhere else, and why.
ELSEWHERE = {
    "__main__.py": "tests/unit/cli/test_main.py",
    "app/assembly.py": "tests/integration/test_running.py",
    "app/program.py": "tests/integration/test_running.py",
    "cli/run.py": "tests/integration/test_running.py",
    "cli/demo.py": "tests/integration/test_demo.py",
    "cli/demo_stage.py": "tests/integration/test_demo.py",
}


def test_every_module_has_a_test_at_its_path() -> None:
    package = ROOT / "sidecar"
    missing = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        if "_examples" in relative.parts or not path.read_text().strip().partition('"""\n')[2].strip():
            continue  # nothing but a docstring
        name = "init" if path.name == "__init__.py" else path.stem.lstrip("_")
        expected = ROOT / "tests" / "unit" / relative.parent / f"test_{name}.py"
        other = ELSEWHERE.get(str(relative))
        if not expected.is_file() and not (other and (ROOT / other).is_file()):
            missing.append(f"{relative}: {expected.relative_to(ROOT)}")
    assert missing == []
