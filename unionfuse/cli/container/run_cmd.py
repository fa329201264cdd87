"""`unionfuse run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from unionfuse.cli.container.common import ProgramCommand, place, reports_as_docker, root_option
from unionfuse.syscalls.privilege import is_root

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.container.mounter import Mounter
    from unionfuse.container.options import RunOptions

EPILOG = """\b
Exit codes: that of COMMAND, and
  125  the container could not be started
  126  COMMAND can not be executed
  127  there is no COMMAND

\b
Examples:
  unionfuse run --rm debian:12 cat /etc/os-release
  unionfuse run -it --name work -v $PWD:/src -w /src debian:12 bash
  unionfuse run -d --name web --network host --memory 256m localhost/web:1
"""


@click.command(
    "run",
    cls=ProgramCommand,
    epilog=EPILOG,
    context_settings={"allow_interspersed_args": False},
)
@click.argument("image", metavar="IMAGE")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND [ARG]...]")
@click.option("--name", metavar="NAME", help="Name of the container.  [default: one is made up]")
@click.option("--rm", "remove", is_flag=True, help="Remove the container when it ends.")
@click.option("-d", "--detach", is_flag=True, help="Return at once; print the container's id.")
@click.option("-i", "--interactive", is_flag=True, help="Pass stdin on.")
@click.option("-t", "--tty", is_flag=True, help="Give the container a terminal.")
@click.option(
    "-v",
    "--volume",
    "volumes",
    multiple=True,
    metavar="SRC:DST[:ro]",
    help="Show a directory or file of the host in the container.",
)
@click.option("--tmpfs", "tmpfs", multiple=True, metavar="DST[:OPTIONS]", help="Mount a tmpfs.")
@click.option("-e", "--env", "env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable.")
@click.option("-w", "--workdir", default="", metavar="DIR", help="Begin in DIR.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run as USER.")
@click.option("--entrypoint", metavar="PROGRAM", help="Instead of the image's entrypoint.")
@click.option("--hostname", default="", metavar="NAME", help="Name that the container has.")
@click.option(
    "--network",
    type=click.Choice(["none", "host"]),
    default="none",
    show_default=True,
    help="Loopback alone, or the host's own.",
)
@click.option("--read-only", is_flag=True, help="Let the container change nothing of its image.")
@click.option("--memory", metavar="SIZE", help="At most so much: 64m, 1g.")
@click.option(
    "--cpus", type=click.FloatRange(0, min_open=True), metavar="N", help="At most so many."
)
@click.option(
    "--pids-limit", type=click.IntRange(1), metavar="N", help="At most so many processes."
)
@click.option(
    "--io",
    type=click.Choice(["auto", "cached", "passthrough"]),
    default="auto",
    show_default=True,
    help="How file data goes, as for mount.",
)
@root_option
@reports_as_docker
def command(  # noqa: PLR0913 - one parameter an option
    image: str,
    arguments: tuple[str, ...],
    name: str | None,
    remove: bool,
    detach: bool,
    interactive: bool,
    tty: bool,
    volumes: tuple[str, ...],
    tmpfs: tuple[str, ...],
    env: tuple[str, ...],
    workdir: str,
    user: str,
    entrypoint: str | None,
    hostname: str,
    network: str,
    read_only: bool,
    memory: str | None,
    cpus: float | None,
    pids_limit: int | None,
    io: str,
    root: Path | None,
) -> None:
    """Start a container of IMAGE and run COMMAND in it, or what the image says."""
    from unionfuse.container import namespaces
    from unionfuse.container.mounter import Mounter

    outside = is_root()
    namespaces.enter()
    with Mounter() as ready:
        # what follows takes as long to load as what the child has just begun to
        from unionfuse.container import options as opts

        options = opts.RunOptions(
            command=arguments,
            entrypoint=None if entrypoint is None else (entrypoint,) if entrypoint else (),
            env=tuple(each for text in env if (each := opts.parse_env(text)) is not None),
            user=user,
            workdir=workdir,
            hostname=hostname,
            network=network,
            read_only=read_only,
            binds=tuple(map(opts.parse_bind, volumes)),
            tmpfs=tuple(map(opts.parse_tmpfs, tmpfs)),
            limits=opts.Limits(
                memory=0 if memory is None else opts.parse_size(memory),
                cpus=cpus or 0.0,
                pids=pids_limit or 0,
            ),
            tty=tty,
            interactive=interactive,
            remove=remove,
            io=io,
        )
        opts.refuse_duplicates((*options.binds, *options.tmpfs))
        code = _run(place(root, outside), ready, Wanted(image, name), options, detach=detach)
    if code:
        raise click.exceptions.Exit(code)


class Wanted(NamedTuple):
    """The name of an image, and that of the container to be made."""

    image: str
    name: str | None


def _run(root: Path, ready: Mounter, wanted: Wanted, options: RunOptions, *, detach: bool) -> int:
    from unionfuse.container import run
    from unionfuse.container.create import create
    from unionfuse.container.images import source_of
    from unionfuse.container.state import Containers

    containers = Containers(root)
    with source_of(root, wanted.image) as source:
        container = create(containers, source, options, wanted.name)
    if detach:
        run.run_detached(containers, container, ready)
        click.echo(container.id)
        return 0
    return run.run_attached(containers, container, takes_input=options.interactive, ready=ready)
