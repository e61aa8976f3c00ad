"""``sidecar policy``: is a policy file in order, and what is in it?"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from sidecar.clock import SYSTEM_CLOCK
from sidecar.errors import PolicyError
from sidecar.policy.lint import warn_of
from sidecar.policy.loader import load_policy
from sidecar.policy.model import KINDS, Policy
from sidecar.terminal import escape


@click.group()
def command() -> None:
    """Check a policy file."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path), envvar="SIDECAR_POLICY")
@click.option("--json", "as_json", is_flag=True, help="One object with ok, problems, warnings and counts.")
def check(file: Path, as_json: bool) -> None:
    """Read FILE (SIDECAR_POLICY without it) as strictly as the sidecar does.

    Every mistake is one line, FILE:LINE:COLUMN: MESSAGE, and the exit code then 2. Warnings are about what is
    allowed and still worth a look: identities that have ended, owners to be reviewed, scopes that nobody has.
    """
    try:
        policy = load_policy(file)
    except PolicyError as exc:
        if as_json:
            report = {"ok": False, "file": str(file), "problems": list(exc.problems), "warnings": []}
            click.echo(json.dumps(report, indent=2))
        else:
            # Without the command's name in front: editors jump to FILE:LINE:COLUMN where a line begins.
            for problem in exc.problems:
                click.echo(escape(problem), err=True)
        raise click.exceptions.Exit(exc.exit_code) from exc
    warnings = warn_of(policy, SYSTEM_CLOCK.now())
    if as_json:
        report = {"ok": True, "file": str(file), "problems": [], "warnings": warnings, **count(policy)}
        click.echo(json.dumps(report, indent=2))
        return
    for warning in warnings:
        click.echo(f"warning: {escape(warning)}", err=True)
    click.echo(f"{escape(str(file))} is in order: {summarise(policy)}")
    click.echo(policy.sha256)


def count(policy: Policy) -> dict[str, Any]:
    """Members for ``--json``: the hash and how much of what there is."""
    kinds = Counter(identity.kind for identity in policy.identities.values())
    return {
        "sha256": policy.sha256,
        "identities": {kind: kinds[kind] for kind in KINDS if kinds[kind]},
        "scopes": len(policy.scopes),
        "owners": len(policy.owners),
        "deny": len(policy.denials),
    }


def summarise(policy: Policy) -> str:
    """The same in words."""
    counts = count(policy)
    kinds = ", ".join(f"{number} {kind}" for kind, number in counts["identities"].items())
    return (
        f"{len(policy.identities)} identities ({kinds}), {counts['scopes']} scopes, "
        f"{counts['owners']} owners, {counts['deny']} deny rules"
    )
