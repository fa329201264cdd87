"""`unionfuse mount`."""

from __future__ import annotations

import os

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.serving import Serving, serving_options
from unionfuse.fuse.options import split_layers
from unionfuse.fuse.overlay_words import LayerWords, take_layers
from unionfuse.fuse.words import parse_words

IMAGE = "image:"  # before the name of an image, in place of lowers

EPILOG = """\b
Examples:
  unionfuse mount lower upper mnt            one lower layer
  unionfuse mount top:middle:bottom up mnt   several, the leftmost on top
  unionfuse mount 'a\\:b' up mnt              a layer with a colon in its name
  unionfuse mount --read-only l1:l2 mnt      nothing to write to
  unionfuse mount -o noatime,nosuid,volatile lower up mnt
  unionfuse mount image:debian:12 up mnt     the layers of an image

\b
Mount options (-o, comma-separated, repeatable):
  ro rw nosuid nodev noexec sync dirsync noatime nodiratime relatime strictatime
  allow_other    other users may use the mount (default for root)
  volatile       never wait for the disk; after a power failure the upper may be damaged,
                 so the next mount is refused until WORKDIR/work/incompat is removed
  fsync=auto|strict|volatile|0|1
                 auto, 1: copied data is written to disk; strict: directories and all too;
                 0: as volatile, and the next mount is not refused
  writeback=0|1  0: the kernel sends each write at once (kernel session, cached data)
  timeout=SEC    how long the kernel may keep names and attributes (default: for ever)
  fsname=NAME    the source that the mount table shows
  subtype=NAME   its type there is fuse.NAME
  metacopy=on|off redirect_dir=on|follow|nofollow|off index=on|off xino=on|off|auto
                 as for overlayfs; the first two are on where root writes the upper
  nfs_export=on  file handles find their files, whatever the kernel has forgotten
  lowerdir=LOWER[:LOWER...],upperdir=DIR,workdir=DIR
                 the layers, in the words of overlayfs: then MNT is the only argument
"""


@click.command(epilog=EPILOG)
@click.argument("paths", nargs=-1, required=True, metavar="LOWER[:LOWER...] UPPER MNT")
@click.option(
    "--workdir",
    metavar="DIR",
    help="Where changes are prepared: on UPPER's filesystem.  [default: UPPER.work]",
)
@click.option("--read-only", is_flag=True, help="Mount without an upper: LOWER[:LOWER...] MNT.")
@serving_options
@reports_failures
def mount(paths: tuple[str, ...], workdir: str | None, read_only: bool, serving: Serving) -> None:
    """Mount LOWER layers, the leftmost on top, under the writable UPPER, on MNT.

    All changes go to UPPER; the lower layers are never touched. The command returns when the
    mount serves; `unionfuse umount MNT` ends it. For LOWER, image:REF stands for the layers of an
    image, see `unionfuse image`.
    """
    layers, words = take_layers(serving.texts)
    if layers is None and paths[0].startswith(IMAGE):
        _mount_image(paths, workdir, serving, read_only=read_only)
        return
    if layers is None:
        layers = _layers(paths, workdir, read_only=read_only)
    elif len(paths) != 1 or workdir is not None or read_only:
        raise click.UsageError("with lowerdir= in -o, expected MNT alone")
    serving.start(layers, paths[-1], parse_words(words))


def _mount_image(
    paths: tuple[str, ...], workdir: str | None, serving: Serving, *, read_only: bool
) -> None:
    from unionfuse.cli.image.mounted import mount_image

    _check_count(paths, read_only=read_only)
    upper = None if read_only else paths[1]
    mount_image(paths[0].removeprefix(IMAGE), paths[-1], upper, workdir, serving)


def _check_count(paths: tuple[str, ...], *, read_only: bool) -> None:
    if len(paths) != (2 if read_only else 3):
        usage = "--read-only LOWER[:LOWER...] MNT" if read_only else "LOWER[:LOWER...] UPPER MNT"
        raise click.UsageError(f"expected {usage}")


def _layers(paths: tuple[str, ...], workdir: str | None, *, read_only: bool) -> LayerWords:
    _check_count(paths, read_only=read_only)
    return LayerWords(
        tuple(split_layers(os.fsencode(paths[0]))),
        None if read_only else os.fsencode(paths[1]),
        None if workdir is None else os.fsencode(workdir),
    )
