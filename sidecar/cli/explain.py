"""``sidecar explain``: would a call be allowed, and why?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from sidecar.cli.admin_client import admin_call
from sidecar.cli.table import print_table
from sidecar.errors import UnavailableError
from sidecar.review.question import Question, build_question
from sidecar.terminal import escape

_FACTS = (
    "source",
    "path",
    "purpose",
    "rule",
    "route",
    "scope",
    "owner",
    "kind",
    "environment",
    "grant",
    "until",
    "policy",
)


@click.command(short_help="Say whether a call would be allowed, and why.")
@click.option("--as", "caller", required=True, metavar="SPIFFE_ID", help="Who calls.")
@click.option("--purpose", help="What the call declares in Call-Purpose.")
@click.option(
    "--policy",
    "file",
    type=click.Path(path_type=Path),
    help="Judge by this file instead of the running sidecar or SIDECAR_POLICY.",
)
@click.option("--json", "as_json", is_flag=True, help="One object.")
@click.argument("method")
@click.argument("path")
def command(
    caller: str, purpose: str | None, file: Path | None, as_json: bool, method: str, path: str
) -> None:
    """Say whether the call METHOD PATH of SPIFFE_ID would be allowed, why, and what would change it.

    By the file of --policy; else by the running sidecar, which knows its grants and rates; else, where none answers,
    by the file of SIDECAR_POLICY. The answer says by which. A file knows no grants. Nothing is charged or used.

    Exit codes: 0 allowed, 3 denied, 2 bad usage or policy.
    """
    question = build_question(caller, method, path, purpose)
    answer, source = _ask(question, file)
    if not isinstance(answer, dict) or answer.get("effect") not in ("allow", "deny"):
        raise UnavailableError("the sidecar's answer is not an explanation")
    answer = {**answer, "source": source}
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        _show(answer)
    if answer["effect"] != "allow":
        raise click.exceptions.Exit(3)


def _ask(question: Question, file: Path | None) -> tuple[Any, str]:
    """The answer, and who gave it."""
    if file is None:
        try:
            return admin_call("POST", "/v1/explain", question.as_json()), "the running sidecar"
        except UnavailableError:
            named = os.environ.get("SIDECAR_POLICY")
            if not named:
                raise
            file = Path(named)
    return explain_by_file(question, file), f"the file {str(file)!r}; grants and rates are not known"


def explain_by_file(question: Question, file: Path) -> dict[str, Any]:
    """The answer of the policy in ``file`` alone. Raises PolicyError."""
    # Imported here: asking the running sidecar needs none of it.
    from sidecar.app.explain import explain
    from sidecar.authz.decide import Authorizer
    from sidecar.authz.ports import NoGrants
    from sidecar.clock import SYSTEM_CLOCK
    from sidecar.policy.loader import load_policy

    return explain(Authorizer(load_policy(file), NoGrants(), SYSTEM_CLOCK), question)


def _show(answer: dict[str, Any]) -> None:
    allowed = answer["effect"] == "allow"
    verdict = click.style(answer["effect"], bold=True, fg="green" if allowed else "red")
    call = f"{answer.get('method')} {answer.get('target')} by {answer.get('caller')}"
    click.echo(f"{verdict} {escape(str(answer.get('reason')))}: {escape(call)}\n")
    facts = [(name, str(answer[name])) for name in _FACTS if answer.get(name) is not None]
    if answer.get("lifted"):
        facts.append(("lifted", ", ".join(answer["lifted"])))
    print_table(("what", "is"), facts)
    click.echo()
    steps = [(step["step"], step["result"], step["says"]) for step in answer.get("steps", ())]
    print_table(("step", "result", "because"), steps)
    if answer.get("change"):
        click.echo(f"\nto allow it: {escape(answer['change'])}")
