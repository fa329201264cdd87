"""The command line of the benchmark."""

from __future__ import annotations

import click

from bench.cli import measuring, reporting

__all__ = ["main"]


@click.group()
def main() -> None:
    """Compare union filesystems."""


for command in (*measuring.COMMANDS, *reporting.COMMANDS):
    main.add_command(command)
