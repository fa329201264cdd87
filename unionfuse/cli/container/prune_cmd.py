"""`unionfuse prune`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unionfuse.cli.container.common import containers_at, reports, root_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command("prune")
@root_option
@reports
def command(root: Path | None) -> None:
    """Remove every container that does not run; print their ids.

    Images stay; `unionfuse image gc` removes what no image and no container needs.
    """
    from unionfuse.container import namespaces
    from unionfuse.container.errors import ContainerError
    from unionfuse.container.finish import recover
    from unionfuse.container.state import RUNNING
    from unionfuse.container.stop import remove

    containers = containers_at(root)
    ended = [each for each in containers.all() if recover(containers, each).status != RUNNING]
    namespaces.enter_users()
    containers.sweep()
    for container in ended:
        try:
            remove(containers, container, force=False)
        except ContainerError:  # started or removed meanwhile
            continue
        click.echo(container.id)
