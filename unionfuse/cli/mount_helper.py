"""`mount.unionfuse`, `mount.fuse.unionfuse`: run by `mount -t [fuse.]unionfuse SRC MNT -o OPTS`."""

from __future__ import annotations

import os
import sys

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.fuse.options import MountPlan, split_layers
from unionfuse.fuse.overlay_words import LayerWords, take_layers
from unionfuse.fuse.words import flag_words, parse_words

# What fstab(5) says to mount(8), systemd and others, and not to us.
_OF_FSTAB = frozenset(
    {"auto", "noauto", "user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup"}
    | {"nofail", "_netdev"}
)
EPILOG = """\b
In fstab(5):
  unionfuse /mnt fuse.unionfuse lowerdir=/a:/b,upperdir=/up,workdir=/work 0 0
  /a:/b     /mnt fuse.unionfuse ro 0 0
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", metavar="SRC")
@click.argument("mountpoint", metavar="MNT")
@click.option("-o", "options", multiple=True, metavar="OPT[,OPT...]", help="Mount options.")
@click.option("-r", "read_only", is_flag=True, help="The same as -o ro.")
@click.option("-w", "writable", is_flag=True, help="The same as -o rw.")
@click.option("-f", "fake", is_flag=True, help="Check everything, mount nothing.")
@click.option("-t", "fstype", metavar="TYPE", help="Of mount(8): fuse.SUBTYPE.")
@click.option("-n", "-s", "-v", "ignored", is_flag=True, help="Of mount(8): nothing to do.")
@reports_failures
def mount_helper(  # noqa: PLR0913 - one parameter an option
    source: str,
    mountpoint: str,
    options: tuple[str, ...],
    read_only: bool,
    writable: bool,
    fake: bool,
    fstype: str | None,
    ignored: bool,
) -> None:
    """Mount a union on MNT, and return when it serves.

    The layers are in OPTS, as for overlayfs: lowerdir=LOWER[:LOWER...],upperdir=DIR,workdir=DIR;
    without upperdir= there is nothing to write to; session= and io= are those of
    `unionfuse mount`. SRC is what the mount table shows. Without lowerdir= it is the
    LOWER[:LOWER...] themselves.
    """
    from unionfuse.fuse import daemon, mounting
    from unionfuse.fuse.plan import make_plan

    words = [*options, *(["ro"] if read_only else []), *(["rw"] if writable else [])]
    layers, others = take_layers(tuple(words))
    others = tuple(word for word in others if not _is_of_fstab(word))
    if "remount" in others:
        # mount(8) says all that the mount table shows, too.
        mounting.remount(os.fsencode(mountpoint), parse_words(flag_words(others)))
        return
    named = [f"fsname={source}"] if layers is not None else []
    # What mount(8) looks for at a remount is the helper of the type that the mount table shows.
    called = fstype or os.path.basename(sys.argv[0]).removeprefix("mount.")
    if called.startswith("fuse."):
        named.append(f"subtype={called.removeprefix('fuse.')}")
    if layers is None:
        layers = LayerWords(tuple(split_layers(os.fsencode(source))))
    chosen = parse_words((*named, *others))
    plan = make_plan(
        MountPlan(
            lowers=layers.lowers,
            upper=layers.upper,
            workdir=layers.workdir,
            mountpoint=os.fsencode(mountpoint),
            session=chosen.session or "auto",
            io=chosen.io or "auto",
            options=chosen,
        )
    )
    if not fake:
        daemon.start(plan)


def _is_of_fstab(word: str) -> bool:
    return word in _OF_FSTAB or word.lower().startswith(("x-", "comment="))


def main() -> None:
    """Run the command and exit."""
    mount_helper(prog_name=os.path.basename(sys.argv[0]))
