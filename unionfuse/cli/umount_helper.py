"""`umount.fuse.unionfuse`: what umount(8) runs for a mount of type fuse.unionfuse.

umount(2) of FUSE does not wait for the daemon, which still has the layers open then: a script that
unmounts their filesystem next would find it busy. This waits, as the kernel's overlayfs does.
"""

from __future__ import annotations

import os
import sys

import click

from unionfuse.cli.errors import reports_failures, say


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("mountpoint", metavar="MNT")
@click.option("-l", "lazy", is_flag=True, help="Take it out of the tree now.")
@click.option("-t", "fstype", metavar="TYPE", help="Of umount(8): fuse.SUBTYPE.")
@click.option("-N", "namespace", metavar="NS", help="Of umount(8): refused.")
@click.option("-f", "-n", "-r", "-v", "ignored", is_flag=True, help="Of umount(8): nothing to do.")
@reports_failures
def umount_helper(
    mountpoint: str, lazy: bool, fstype: str | None, namespace: str | None, ignored: bool
) -> None:
    """Unmount the union on MNT, and return when its daemon has written everything and gone."""
    from unionfuse.fuse.errors import MountError
    from unionfuse.fuse.unmounting import unmount_and_wait

    if namespace is not None:
        raise MountError(f"-N: run umount in that namespace (nsenter --mount={namespace})")
    elsewhere = unmount_and_wait(os.fsencode(mountpoint), lazy=lazy)
    if elsewhere is not None:
        say(f"{mountpoint} is unmounted here, and goes on: {elsewhere}")


def main() -> None:
    """Run the command and exit."""
    umount_helper(prog_name=os.path.basename(sys.argv[0]))
