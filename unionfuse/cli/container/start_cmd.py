"""`unionfuse start`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unionfuse.cli.container.common import Failures, containers_at, reports_as_docker, root_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command("start")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.option("-a", "--attach", is_flag=True, help="Be its terminal; exit with its exit code.")
@click.option("-i", "--interactive", is_flag=True, help="Pass stdin on; implies -a.")
@root_option
@reports_as_docker
def command(names: tuple[str, ...], attach: bool, interactive: bool, root: Path | None) -> None:
    """Start containers again, with all that they have written; one that runs is left alone."""
    attach = attach or interactive
    if attach and len(names) > 1:
        raise click.UsageError("only one container can be attached to")
    from unionfuse.container import namespaces, run
    from unionfuse.container.errors import WrongState
    from unionfuse.container.finish import recover
    from unionfuse.container.state import RUNNING

    containers = containers_at(root)
    if attach:
        container = containers.find(names[0])
        if recover(containers, container).status == RUNNING:
            raise WrongState(f"{container.record.name} is running")
        namespaces.enter()
        code = run.run_attached(containers, container, takes_input=interactive)
        if code:
            raise click.exceptions.Exit(code)
        return
    failures = Failures()
    for name in names:
        with failures.told():
            container = containers.find(name)
            if recover(containers, container).status != RUNNING:
                run.start_in_child(containers, container)
            click.echo(name)
    failures.end()
