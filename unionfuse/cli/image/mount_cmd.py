"""`unionfuse image mount`."""

from __future__ import annotations

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.image.mounted import mount_image
from unionfuse.cli.serving import Serving, serving_options

EPILOG = """\b
The mount options are those of `unionfuse mount`. While it is mounted, the image's layers stay,
also where `rm` takes its last name.

\b
Examples:
  unionfuse image mount debian:12 mnt                    read-only
  unionfuse image mount debian:12 --upper changes mnt    changes go to a directory
  unionfuse image mount -o noatime --upper changes debian:12 mnt
  unionfuse umount mnt
"""


@click.command("mount", epilog=EPILOG)
@click.argument("ref", metavar="REF")
@click.argument("mountpoint", metavar="MNT")
@click.option("--upper", metavar="DIR", help="Take changes into DIR; else it is read-only.")
@click.option(
    "--workdir",
    metavar="DIR",
    help="Where changes are prepared: on UPPER's filesystem.  [default: UPPER.work]",
)
@serving_options
@reports_failures
def command(
    ref: str, mountpoint: str, upper: str | None, workdir: str | None, serving: Serving
) -> None:
    """Mount an image on MNT, its layers as they are in the store.

    The same as `unionfuse mount image:REF UPPER MNT`.
    """
    if upper is None and workdir is not None:
        raise click.UsageError("--workdir is for what --upper takes")
    mount_image(ref, mountpoint, upper, workdir, serving)
