"""`unionfuse rm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unionfuse.cli.container.common import containers_at, reports, root_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.option("-f", "--force", is_flag=True, help="End them first; those not there are no failure.")
@root_option
@reports
def command(names: tuple[str, ...], force: bool, root: Path | None) -> None:
    """Remove containers with all that they have written."""
    from unionfuse.container import namespaces
    from unionfuse.container.errors import NoSuchContainer
    from unionfuse.container.stop import end, remove

    containers = containers_at(root)
    found = []
    for name in names:
        try:
            found.append((name, containers.find(name)))
        except NoSuchContainer:
            if not force:
                raise
    # their processes are ended from here: in a namespace of our own we had no right to
    for _, container in found:
        end(containers, container, force=force)
    namespaces.enter_users()
    for name, container in found:
        remove(containers, container, force=force)
        click.echo(name)
