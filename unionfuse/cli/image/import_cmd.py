"""`unionfuse image import`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.image.common import (
    existing,
    json_option,
    opened,
    platform_of,
    progress,
    quiet_option,
    tidy,
)
from unionfuse.cli.image.making import Making, making_options, print_made

EPILOG = """\b
The tar may be compressed by gzip, zstd, xz or bzip2. By the first two it stays as it is.

\b
Examples:
  mmdebstrap bookworm | unionfuse image import - debian:12 --cmd bash
  unionfuse image import rootfs.tar.xz alpine:3 --platform linux/arm64
  unionfuse image import rootfs/ localhost/mine:1
"""


@click.command("import", epilog=EPILOG)
@click.argument("source", metavar="TAR|DIR|-")
@click.argument("ref", metavar="REF")
@making_options("unionfuse image import")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="What it runs on.")
@quiet_option
@json_option
@reports_failures
def command(
    source: str,
    ref: str,
    making: Making,
    platform: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make an image of a root filesystem, in a tar or a directory."""
    from unionfuse.image.making.rootfs import import_directory, import_tar

    with opened() as store, progress(quiet=quiet) as watch:
        recipe = making.recipe(ref, watch, platform_of(platform))
        try:
            if source == "-":
                image = import_tar(store, sys.stdin.buffer, recipe)
            elif Path(source).is_dir():
                image = import_directory(store, Path(source), recipe)
            else:
                with existing(source) as file:
                    image = import_tar(store, file, recipe)
        finally:
            tidy(store)
    print_made(ref, image, as_json=as_json)
