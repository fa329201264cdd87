"""`unionfuse logs`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from unionfuse.cli.container.common import containers_at, reports, root_option

if TYPE_CHECKING:
    from pathlib import Path

_DESCRIPTORS = {"stdout": 1, "stderr": 2}


@click.command("logs")
@click.argument("name", metavar="CONTAINER")
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@click.option("-n", "--tail", type=click.IntRange(0), metavar="N", help="The last N lines alone.")
@click.option("-t", "--timestamps", is_flag=True, help="Say when each line was written.")
@root_option
@reports
def command(name: str, follow: bool, tail: int | None, timestamps: bool, root: Path | None) -> None:
    """Print what a container has said, on stdout and stderr as it has."""
    from unionfuse.container.logs import lines

    container = containers_at(root).find(name)
    try:
        for line in lines(container, count=tail, follow=follow):
            stamp = line.when + b" " if timestamps else b""
            os.write(_DESCRIPTORS[line.stream], stamp + line.text)
    except BrokenPipeError:  # enough, says the reader
        return
