"""`unionfuse image unshare`."""

from __future__ import annotations

import os

import click

from unionfuse.cli.errors import Failure, reports_failures

EPILOG = """\b
What is mounted in there is seen in there alone, and gone with the last process of it.

\b
Examples:
  unionfuse image unshare
  unionfuse image unshare sh -c 'unionfuse image mount debian:12 mnt && ls -ln mnt/etc'
"""


@click.command(
    "unshare",
    epilog=EPILOG,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", metavar="[COMMAND [ARG...]]", nargs=-1, type=click.UNPROCESSED)
@reports_failures
def command(words: tuple[str, ...]) -> None:
    """Run a shell, or COMMAND, in the user namespace that other commands work in.

    It is root there, with the ids of /etc/subuid and /etc/subgid, and has mounts of its own.
    """
    from unionfuse.cli.image.rootless import available, enter

    mapping = available()
    if mapping is None:
        raise Failure(
            "no user namespace to enter: this is root, or there is no newuidmap, "
            "or nothing for this user in /etc/subuid and /etc/subgid"
        )
    enter(mapping, list(words) or [os.environ.get("SHELL", "/bin/sh")], with_mounts=True)
