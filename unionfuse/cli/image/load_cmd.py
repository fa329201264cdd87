"""`unionfuse image load`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.image.common import (
    existing,
    json_option,
    opened,
    print_json,
    progress,
    quiet_option,
    tidy,
)
from unionfuse.cli.printing import printable

if TYPE_CHECKING:
    from unionfuse.image.archives.load import Loaded
    from unionfuse.image.reference import Reference
    from unionfuse.image.store.store import Store
    from unionfuse.image.watch import Watch

EPILOG = """\b
SOURCE is what `save` of docker, podman, skopeo or unionfuse has made: an image layout of OCI, as
a directory or a tar, or an archive of docker's; tars may be compressed by gzip or zstd.

\b
Examples:
  unionfuse image load debian.tar
  docker save debian:12 | unionfuse image load -
  unionfuse image load --name localhost/base:1 layout/
"""


@click.command("load", epilog=EPILOG)
@click.argument("source", metavar="FILE|DIR|-")
@click.option("--name", "names", multiple=True, metavar="REF", help="Name its one image so.")
@quiet_option
@json_option
@reports_failures
def command(source: str, names: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Take images out of an archive or an image layout, verify and unpack them."""
    from unionfuse.image.reference import Reference

    references = tuple(map(Reference.parse, names))
    with opened() as store:
        try:
            with progress(quiet=quiet) as watch:
                loaded = _load(store, source, references, watch)
        finally:
            tidy(store)
    if as_json:
        found = [
            {"ref": name, "id": image.id, "digest": image.root.digest} for name, image in loaded
        ]
        print_json(found)
        return
    for name, _ in loaded:
        click.echo(f"loaded {printable(name)}")


def _load(store: Store, source: str, names: tuple[Reference, ...], watch: Watch) -> list[Loaded]:
    from unionfuse.image.archives.load import load_directory, load_file

    if source == "-":
        return load_file(store, sys.stdin.buffer, 0, names, watch)
    path = Path(source)
    if path.is_dir():
        return load_directory(store, path, names, watch)
    with existing(source) as file:
        return load_file(store, file, os.fstat(file.fileno()).st_size, names, watch)
