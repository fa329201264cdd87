"""`unionfuse exec`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unionfuse.cli.container.common import (
    ProgramCommand,
    containers_at,
    reports_as_docker,
    root_option,
)

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\b
Exit codes: that of COMMAND, and
  125  it could not be started
  126  COMMAND can not be executed
  127  there is no COMMAND

\b
Examples:
  unionfuse exec -it web sh
  unionfuse exec -u root -w /etc web ls -l
"""


@click.command(
    "exec",
    cls=ProgramCommand,
    epilog=EPILOG,
    context_settings={"allow_interspersed_args": False},
)
@click.argument("name", metavar="CONTAINER")
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
@click.option("-d", "--detach", is_flag=True, help="Return at once.")
@click.option("-i", "--interactive", is_flag=True, help="Pass stdin on.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-e", "--env", "env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable.")
@click.option("-w", "--workdir", default="", metavar="DIR", help="Begin in DIR.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run as USER.")
@root_option
@reports_as_docker
def command(  # noqa: PLR0913 - one parameter an option
    name: str,
    arguments: tuple[str, ...],
    detach: bool,
    interactive: bool,
    tty: bool,
    env: tuple[str, ...],
    workdir: str,
    user: str,
    root: Path | None,
) -> None:
    """Run COMMAND in a container that runs."""
    from unionfuse.container import execute
    from unionfuse.container.options import RunOptions, parse_env

    containers = containers_at(root)
    container = containers.find(name)
    options = RunOptions(
        command=arguments,
        env=tuple(each for text in env if (each := parse_env(text)) is not None),
        user=user,
        workdir=workdir,
        tty=tty,
        interactive=interactive,
    )
    execute.join(containers, container)
    code = execute.execute(container, options, detach=detach)
    if code:
        raise click.exceptions.Exit(code)
