"""`unionfuse image unshare`."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import click

from unionfuse.cli.errors import Failure, reports_failures
from unionfuse.cli.image.common import chosen
from unionfuse.fuse import table
from unionfuse.fuse.errors import MountError
from unionfuse.fuse.unmounting import unmount_and_wait
from unionfuse.image.store.places import Places, default_root
from unionfuse.syscalls.privilege import is_root

if TYPE_CHECKING:
    from unionfuse.fuse.table import MountRecord

EPILOG = """\b
What is mounted in there is seen in there alone, and unmounted when COMMAND has ended.

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
    from unionfuse.cli.image.rootless import available, enter, execute

    mapping = available()
    if mapping is None:
        raise Failure(
            "no user namespace to enter: this is root, or there is no newuidmap, "
            "or nothing for this user in /etc/subuid and /etc/subgid"
        )
    enter(mapping, with_mounts=True)
    before = table.mounted()
    child = os.fork()
    if not child:
        execute(list(words) or [os.environ.get("SHELL", "/bin/sh")])
    status = _wait(child)
    # Its daemon would live on, in a namespace that nobody can enter any more.
    for record in reversed(table.mounted()):
        if record not in before and not _is_of_container(record):
            with contextlib.suppress(MountError, OSError):  # something still runs in it
                unmount_and_wait(os.fsencode(record.mountpoint), lazy=False)
    raise click.exceptions.Exit(status)


def _wait(child: int) -> int:
    """Wait for a child, which gets the terminal's signals itself; return what a shell would."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(child, number))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def _is_of_container(record: MountRecord) -> bool:
    """Tell whether a container may still run on a mount."""
    root = chosen().root or default_root(is_root=is_root())
    return record.mountpoint.startswith(f"{Places(root.absolute()).containers}/")
