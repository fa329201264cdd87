"""`unionfuse export`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from unionfuse.cli.container.common import containers_at, reports, root_option
from unionfuse.cli.errors import say

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\b
Examples:
  unionfuse export work -o rootfs.tar
  unionfuse export work | tar -t
"""


@click.command("export", epilog=EPILOG)
@click.argument("name", metavar="CONTAINER")
@click.option("-o", "--output", metavar="FILE", help="Where to; the standard output if not.")
@root_option
@reports
def command(name: str, output: str | None, root: Path | None) -> None:
    """Write all that a container shows as one tar."""
    if output in (None, "-") and sys.stdout.isatty():
        raise click.UsageError("a tar is not for a terminal: give -o FILE")
    from unionfuse.cli.image.output import new_file
    from unionfuse.container import keep, view

    containers = containers_at(root)
    container = containers.find(name)
    with new_file(output) as file, view.settled(containers, container):
        notes = keep.export(container, file.write)
    for note in notes:
        say(note)
