"""`unionfuse mount`."""

from __future__ import annotations

import os

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.fuse.options import DEFAULT_POLL_US, MountPlan, split_layers
from unionfuse.fuse.overlay_words import LayerWords, take_layers
from unionfuse.fuse.words import parse_words

EPILOG = r"""\b
Examples:
  unionfuse mount lower upper mnt            one lower layer
  unionfuse mount top:middle:bottom up mnt   several, the leftmost on top
  unionfuse mount 'a\:b' up mnt              a layer with a colon in its name
  unionfuse mount --read-only l1:l2 mnt      nothing to write to
  unionfuse mount -o noatime,nosuid,volatile lower up mnt

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
@click.option(
    "-o", "options", multiple=True, metavar="OPT[,OPT...]", help="Mount options, see below."
)
@click.option("--read-only", is_flag=True, help="Mount without an upper: LOWER[:LOWER...] MNT.")
@click.option(
    "--session",
    type=click.Choice(["auto", "pyfuse3", "kernel"]),
    default="auto",
    show_default=True,
    help="What speaks to the kernel.",
)
@click.option(
    "--io",
    type=click.Choice(["auto", "cached", "passthrough"]),
    default="auto",
    show_default=True,
    help="How file data goes: through the kernel's cache of this mount, or past this program.",
)
@click.option(
    "--poll-us",
    type=click.IntRange(0, 10_000),
    default=DEFAULT_POLL_US,
    show_default=True,
    help="Look for the next request so many microseconds before going to sleep; 0: never.",
)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, log to stderr.")
@click.option("-d", "--debug", is_flag=True, help="Log more; implies -f unless --log is given.")
@click.option("--log", metavar="FILE", help="Log to FILE.  [default: the system's log]")
@reports_failures
def mount(  # noqa: PLR0913 - one parameter an option
    paths: tuple[str, ...],
    workdir: str | None,
    options: tuple[str, ...],
    read_only: bool,
    session: str,
    io: str,
    poll_us: int,
    foreground: bool,
    debug: bool,
    log: str | None,
) -> None:
    """Mount LOWER layers, the leftmost on top, under the writable UPPER, on MNT.

    All changes go to UPPER; the lower layers are never touched. The command returns when the
    mount serves; `unionfuse umount MNT` ends it.
    """
    layers, words = take_layers(options)
    if layers is None:
        layers = _layers(paths, workdir, read_only=read_only)
    elif len(paths) != 1 or workdir is not None or read_only:
        raise click.UsageError("with lowerdir= in -o, expected MNT alone")
    from unionfuse.fuse import daemon
    from unionfuse.fuse.plan import make_plan

    chosen = parse_words(words)
    daemon.start(
        make_plan(
            MountPlan(
                lowers=layers.lowers,
                upper=layers.upper,
                workdir=layers.workdir,
                mountpoint=os.fsencode(paths[-1]),
                session=chosen.session or session,
                io=chosen.io or io,
                poll_us=poll_us,
                options=chosen,
                debug=debug or chosen.debug,
                foreground=foreground or ((debug or chosen.debug) and log is None),
                log=None if log is None else os.path.abspath(os.fsencode(log)),
            )
        )
    )


def _layers(paths: tuple[str, ...], workdir: str | None, *, read_only: bool) -> LayerWords:
    if len(paths) != (2 if read_only else 3):
        usage = "--read-only LOWER[:LOWER...] MNT" if read_only else "LOWER[:LOWER...] UPPER MNT"
        raise click.UsageError(f"expected {usage}")
    return LayerWords(
        tuple(split_layers(os.fsencode(paths[0]))),
        None if read_only else os.fsencode(paths[1]),
        None if workdir is None else os.fsencode(workdir),
    )
