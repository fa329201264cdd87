"""`unionfuse snapshotter`."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from unionfuse.cli.errors import INTERRUPTED, Failure, reports_failures

EPILOG = """\b
In containerd's config.toml:
  [proxy_plugins.unionfuse]
    type = "snapshot"
    address = "/run/unionfuse-snapshotter.sock"

\b
Then:
  ctr images pull --snapshotter unionfuse REF
  ctr run --snapshotter unionfuse --rm REF NAME COMMAND
"""


@click.command(epilog=EPILOG)
@click.option(
    "--address",
    default="/run/unionfuse-snapshotter.sock",
    show_default=True,
    metavar="SOCKET",
    type=click.Path(path_type=Path),
    help="The socket that containerd connects to.",
)
@click.option(
    "--root",
    default="/var/lib/unionfuse-snapshotter",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the snapshots are kept.",
)
@click.option(
    "--mount-program",
    default="unionfuse-overlay",
    show_default=True,
    metavar="PROGRAM",
    help="What mounts them: a name in the PATH of containerd, or a path.",
)
@click.option(
    "-o", "options", multiple=True, metavar="OPT", help="A mount option for each of them."
)
@click.option("--debug", is_flag=True, help="Log every request.")
@reports_failures
def snapshotter(
    address: Path, root: Path, mount_program: str, options: tuple[str, ...], debug: bool
) -> None:
    """Serve snapshots to containerd, in the foreground.

    Images are unpacked and containers run on unions: layers are shared, and each is there once.
    One process serves a DIR at a time; it may be ended and started again while containers run.
    """
    import logging

    try:
        from unionfuse.snapshots import server
    except ModuleNotFoundError as err:
        raise Failure(f"no module {err.name}: pip install 'unionfuse[containerd]'") from None
    from unionfuse.snapshots.errors import ServerError
    from unionfuse.snapshots.mounts import MountWords

    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(level=level, format="%(levelname)s %(message)s")
    try:
        number = server.run(address, root, MountWords(mount_program, options))
    except ServerError as err:
        raise Failure(str(err)) from None
    if number is signal.SIGINT:
        raise click.exceptions.Exit(INTERRUPTED)
