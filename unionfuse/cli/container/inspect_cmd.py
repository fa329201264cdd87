"""`unionfuse inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unionfuse.cli.container.common import containers_at, print_json, reports, root_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command("inspect")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@root_option
@reports
def command(names: tuple[str, ...], root: Path | None) -> None:
    """Print all that is known of containers, as a JSON list."""
    from unionfuse.container.describe import details
    from unionfuse.container.finish import recover

    containers = containers_at(root)
    found = [containers.find(name) for name in names]
    print_json([details(container, recover(containers, container)) for container in found])
