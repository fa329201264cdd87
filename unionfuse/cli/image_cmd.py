"""`unionfuse image`, the group."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import click

EPILOG = """\b
REF is NAME[:TAG] or HOST[:PORT]/NAME[:TAG][@DIGEST] as docker has it, or an id, or the first
digits of one.

\b
Examples:
  unionfuse image load debian.tar
  unionfuse image ls
  mkdir upper mnt && unionfuse image mount debian:12 --upper upper mnt
  unionfuse image commit upper localhost/mine:1 --base debian:12 --cmd bash
  unionfuse image save localhost/mine:1 -o mine.tar
"""
COMMANDS = (
    "commit",
    "diff",
    "export",
    "gc",
    "history",
    "import",
    "inspect",
    "load",
    "ls",
    "mount",
    "pull",
    "push",
    "rm",
    "save",
    "squash",
    "tag",
    "tree",
    "unpack",
    "unshare",
    "verify",
)
_OUTSIDE = ("mount", "unshare")  # what is mounted in a namespace of its own, nobody would see


class Chosen(NamedTuple):
    """What is said of the store before the name of the command.

    Attributes:
        root: where it is; None for the user's own.
        unlimited: whether layers may be of any size.
    """

    root: Path | None = None
    unlimited: bool = False


class ImageCommands(click.Group):
    """The commands, `NAME` being `command` of `unionfuse.cli.image.NAME_cmd`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"unionfuse.cli.image.{cmd_name}_cmd").command
        return command


@click.group(cls=ImageCommands, epilog=EPILOG)
@click.option(
    "--root",
    metavar="DIR",
    envvar="UNIONFUSE_ROOT",
    type=click.Path(path_type=Path),
    help="The store.  [default: /var/lib/unionfuse; ~/.local/share/unionfuse without root]",
)
@click.option(
    "--unlimited",
    is_flag=True,
    help="Take layers of any size: limits keep those out that are made to fill the disk.",
)
@click.pass_context
def image(ctx: click.Context, root: Path | None, unlimited: bool) -> None:
    """Keep OCI images, and make layers, stacks and images of each other."""
    ctx.obj = Chosen(root, unlimited)
    if ctx.invoked_subcommand in COMMANDS and ctx.invoked_subcommand not in _OUTSIDE:
        _keep_owners()


def _keep_owners() -> None:
    """Without root, go on in a user namespace where files can have other owners."""
    if os.geteuid() == 0 or {"-h", "--help"} & set(sys.argv):
        return
    from unionfuse.cli.image.rootless import available, reenter

    mapping = available()
    if mapping is not None:
        reenter(mapping)
