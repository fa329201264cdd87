"""`unionfuse stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unionfuse.cli.container.common import Failures, containers_at, reports, root_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command("stop")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.option(
    "-t",
    "--time",
    "seconds",
    type=click.FloatRange(0),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long it may take before it is killed; 0: killed at once.",
)
@root_option
@reports
def command(names: tuple[str, ...], seconds: float, root: Path | None) -> None:
    """End containers: by their stop signal, and then by SIGKILL."""
    from unionfuse.container.stop import stop

    containers = containers_at(root)
    failures = Failures()
    for name in names:
        with failures.told():
            stop(containers, containers.find(name), seconds)
            click.echo(name)
    failures.end(1)
