"""Every module of the package has a test file at the same path."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Values, types and ports: nothing in them can be called that could be wrong by itself.
ONLY_DECLARATIONS = {
    "__init__.py",
    "audit/batch.py",
    "authz/call.py",
    "authz/ports.py",
    "errors.py",
    "identity/peer.py",
    "policy/judgement.py",
    "policy/model.py",
    "proxy/context.py",
    "settings/__init__.py",
    "tls/refusal.py",
}
# Parts of a larger thing, tested through it.
ELSEWHERE = {
    "__main__.py": "tests/unit/cli/test_main.py",
    "app/assembly.py": "tests/integration/test_running.py",
    "app/program.py": "tests/integration/test_running.py",
    "ca/profile.py": "tests/unit/ca/test_leaf.py",
    "cli/breakglass_file.py": "tests/unit/cli/test_breakglass.py",
    "cli/breakglass_grant.py": "tests/unit/cli/test_breakglass.py",
    "cli/breakglass_key.py": "tests/unit/cli/test_breakglass.py",
    "cli/breakglass_view.py": "tests/unit/cli/test_breakglass.py",
    "cli/config_files.py": "tests/unit/cli/test_config.py",
    "cli/demo.py": "tests/integration/test_demo.py",
    "cli/demo_stage.py": "tests/integration/test_demo.py",
    "cli/run.py": "tests/integration/test_running.py",
    "issuer/authority_files.py": "tests/unit/issuer/test_store.py",
    "proxy/binding.py": "tests/unit/proxy/test_listener.py",
    "proxy/open_call.py": "tests/unit/proxy/test_exchange.py",
    "proxy/reception.py": "tests/unit/proxy/test_connection.py",
}


def test_every_module_has_a_test_at_its_path() -> None:
    package = ROOT / "sidecar"
    missing = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        if str(relative) in ONLY_DECLARATIONS or "_examples" in relative.parts:
            continue
        if not path.read_text().strip().partition('"""\n')[2].strip():
            continue  # nothing but a docstring
        name = "init" if path.name == "__init__.py" else path.stem.lstrip("_")
        expected = ROOT / "tests" / "unit" / relative.parent / f"test_{name}.py"
        other = ELSEWHERE.get(str(relative))
        if not expected.is_file() and not (other and (ROOT / other).is_file()):
            missing.append(f"{relative}: {expected.relative_to(ROOT)}")
    assert missing == []
