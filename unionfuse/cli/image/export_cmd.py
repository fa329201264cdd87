"""`unionfuse image export`."""

from __future__ import annotations

import sys

import click

from unionfuse.cli.errors import reports_failures, say
from unionfuse.cli.image.common import (
    json_option,
    opened,
    platform_of,
    print_json,
    progress,
    quiet_option,
)
from unionfuse.cli.image.output import new_file

EPILOG = """\b
Examples:
  unionfuse image export debian:12 -o rootfs.tar
  unionfuse image export debian:12 --upper changes | tar -x -C rootfs
"""


@click.command("export", epilog=EPILOG)
@click.argument("ref", metavar="REF")
@click.option("-o", "--output", metavar="FILE", help="Where to; the standard output if not.")
@click.option("--upper", metavar="DIR", help="With what DIR changes, which may be mounted.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of an index.")
@quiet_option
@json_option
@reports_failures
def command(
    ref: str,
    output: str | None,
    upper: str | None,
    platform: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write all that an image shows as one tar, which needs no layers."""
    if output in (None, "-") and (as_json or sys.stdout.isatty()):
        raise click.UsageError("a tar is not for --json or a terminal: give -o FILE")
    from unionfuse.cli.image.upper import settled
    from unionfuse.image.making.rootfs import export

    path = None if upper is None else settled(upper)[0]
    with opened() as store, progress(quiet=quiet) as watch:
        image = store.resolve(ref, platform_of(platform))
        with new_file(output) as file:
            notes = export(store, image, path, file.write, watch)
    for note in notes:
        say(note)
    if as_json:
        print_json({"id": image.id, "digest": image.descriptor.digest, "notes": notes})
