"""`unionfuse umount`."""

from __future__ import annotations

import os

import click

from unionfuse.cli.errors import reports_failures, say

EPILOG = """\b
Examples:
  unionfuse umount mnt
  unionfuse umount --lazy mnt     also clears a mount whose daemon is dead
"""


@click.command(epilog=EPILOG)
@click.argument("mountpoint", metavar="MNT")
@click.option("--lazy", is_flag=True, help="Take it out of the tree now; end when nobody uses it.")
@reports_failures
def umount(mountpoint: str, lazy: bool) -> None:
    """Unmount MNT and wait until its daemon has written everything and gone.

    If it is mounted elsewhere too, as in the mount namespace of a process that was started after
    it, that is told and not waited for.

    Works for root, in the user namespace of the mount, and for the user who mounted it.
    """
    from unionfuse.fuse.unmounting import unmount_and_wait

    elsewhere = unmount_and_wait(os.fsencode(mountpoint), lazy=lazy)
    if elsewhere is not None:
        say(f"{mountpoint} is unmounted here, and goes on: {elsewhere}")
