"""Tables for people: framed by rich on a terminal, plain columns anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from sidecar.terminal import escape


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints ``rows`` to stdout. Nothing is cut off: a terminal folds long cells, a pipe gets whole lines."""
    clean = [[escape(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _print_columns(headings, clean)
        return
    # Imported here: 24 ms that only a table on a terminal is worth.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    for row in clean:
        table.add_row(*(Text(cell) for cell in row))  # Text: no cell is read as markup
    Console().print(table)


def _print_columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = [list(headings), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
