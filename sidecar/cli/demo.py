"""``sidecar demo``: a service being protected, from an empty directory to a verified log, in seconds."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click

from sidecar.cli.demo_stage import ORDERS, TRUST_DOMAIN, WEB
from sidecar.cli.demo_story import Story
from sidecar.cli.demo_world import DemoError, Ran, World, open_world
from sidecar.clock import SYSTEM_CLOCK


class Told:
    """Tells the story on the terminal."""

    def step(self, name: str, title: str) -> None:
        """A heading."""
        click.echo(f"\n{click.style(name, bold=True, fg='cyan')}: {title}")

    def say(self, text: str) -> None:
        """A remark."""
        click.echo(_indented(text, "  "))

    def ran(self, ran: Ran) -> None:
        """The command, what it wrote, and its exit code if that is not 0."""
        click.echo(_indented(f"$ {ran.command}", "  "))
        output = (ran.stdout + ran.stderr).strip("\n")
        if output:
            click.echo(_indented(output, "    "))
        if ran.exit_code:
            click.echo(f"    (exit code {ran.exit_code})")

    def result(self, seen: str) -> None:
        """The step's end."""
        click.echo(f"  {click.style('as promised', fg='green')}: {seen}")


class Untold:
    """Tells nothing, for ``--json``."""

    def step(self, name: str, title: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def ran(self, ran: Ran) -> None:
        """Nothing."""

    def result(self, seen: str) -> None:
        """Nothing."""


@click.command(short_help="Watch a service being protected, step by step.")
@click.option("--keep", is_flag=True, help="Leave it running, with a curl line to try.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end instead of the story.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work here and leave the files; new or empty. Without it: a temporary directory.",
)
def command(keep: bool, as_json: bool, directory: Path | None) -> None:
    """Watch a service being protected, step by step.

    Makes a trust domain of its own, starts the example service with a sidecar in front, makes permitted and
    refused calls, opens one by a signed grant, and verifies the log. Everything stays on loopback and below
    one directory, and every command is shown so that it can be repeated. Needs neither network nor root.

    Exit codes: 0 everything was as promised, 1 something was not, 2 usage.
    """
    with _interruptible(), open_world(SYSTEM_CLOCK, directory) as world:
        began_s = SYSTEM_CLOCK.monotonic_s()
        if not as_json:
            _introduce(world, stays=keep or directory is not None)
        story = Story(world, Untold() if as_json else Told(), SYSTEM_CLOCK)
        error = _play(story, world)
        took_s = round(SYSTEM_CLOCK.monotonic_s() - began_s, 1)
        if as_json:
            click.echo(json.dumps(_report(story, world, error, took_s, keep=keep)))
        if error:
            raise click.exceptions.Exit(1) if as_json else DemoError(f"demo: {error}")
        if not as_json:
            click.echo(f"\nAll {len(story.steps)} steps as promised, in {took_s} s.")
            if keep:
                _say_what_is_left(story, world)
        if keep:
            world.leave_running()


def _introduce(world: World, *, stays: bool) -> None:
    click.echo(f"A service, {ORDERS}, behind a sidecar; its caller, {WEB}; the trust domain {TRUST_DOMAIN}.")
    fate = "stays" if stays else "is removed at the end (--keep, or make demo KEEP=1, leaves it running)"
    click.echo(f"All of it lives in {world.directory}, which {fate}.")


def _play(story: Story, world: World) -> str:
    """Empty if everything was as promised, else what was not; the processes' last lines go to stderr."""
    try:
        story.play()
    except DemoError as exc:
        click.echo(world.logs(), err=True)
        return f"{story.steps[-1].name if story.steps else 'setup'}: {exc}"
    return ""


def _report(story: Story, world: World, error: str, took_s: float, *, keep: bool) -> dict[str, Any]:
    """The object that ``--json`` prints."""
    report: dict[str, Any] = {
        "ok": not error,
        "error": error or None,
        "seconds": took_s,
        "trust_domain": TRUST_DOMAIN,
        "directory": str(world.directory),
        "steps": [step.as_json() for step in story.steps],
    }
    if keep and not error:
        report |= {"curl": story.stage.curl_line(), "stop": world.stop_line()}
    return report


def _say_what_is_left(story: Story, world: World) -> None:
    click.echo("\nIt is left running. An allowed call by curl, with every check on:")
    click.echo(_indented(story.stage.curl_line(), "  "))
    click.echo("How the sidecar is:")
    click.echo(_indented(story.stage.status_line(), "  "))
    click.echo("To stop it and remove its files:")
    click.echo(_indented(world.stop_line(), "  "))


def _indented(text: str, prefix: str) -> str:
    return "\n".join(prefix + line for line in text.split("\n"))


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the block as Ctrl-C does, so that nothing is left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = [(number, signal.signal(number, interrupt)) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, handler)
