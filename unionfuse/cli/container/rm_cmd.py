"""`unionfuse rm`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from unionfuse.cli.container.common import Failures, containers_at, reports, root_option

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
    ignored = (NoSuchContainer,) if force else ()
    failures = Failures()
    found = []
    # their processes are ended from here: in a namespace of our own we had no right to
    for name in names:
        with failures.told(), contextlib.suppress(*ignored):
            container = containers.find(name)
            end(containers, container, force=force)
            found.append((name, container))
    if found:
        namespaces.enter_users()
    for name, container in found:
        with failures.told():
            remove(containers, container, force=force)
            click.echo(name)
    failures.end(1)
