"""`unionfuse image save`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.image.common import (
    json_option,
    opened,
    platform_of,
    print_json,
    progress,
    quiet_option,
)
from unionfuse.cli.image.output import new_directory, new_file

if TYPE_CHECKING:
    from unionfuse.image.archives.save import Wanted
    from unionfuse.image.store.store import Store

FORMATS = ("oci-archive", "oci-dir", "docker-archive")
EPILOG = """\b
Formats:
  oci-archive     a tar of an image layout, with the layers as they are; for podman, skopeo, docker
  oci-dir         the same as a directory
  docker-archive  what `docker save` makes: the layers are not compressed

\b
Examples:
  unionfuse image save debian:12 -o debian.tar
  unionfuse image save debian:12 alpine:3 -o both.tar
  unionfuse image save debian:12 --format docker-archive | podman load
  unionfuse image save debian:12 --format oci-dir -o layout
"""


@click.command("save", epilog=EPILOG)
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE|DIR", help="Where to; the standard output if not.")
@click.option("--format", "kind", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True)
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of an index.")
@click.option("--all-platforms", is_flag=True, help="All images of an index that are here.")
@quiet_option
@json_option
@reports_failures
def command(  # noqa: PLR0913 - one parameter an option
    refs: tuple[str, ...],
    output: str | None,
    kind: str,
    platform: str | None,
    all_platforms: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write images to a file or a directory, every blob verified."""
    if all_platforms and (platform or kind == "docker-archive"):
        raise click.UsageError("--all-platforms is for the formats of OCI, without --platform")
    if output in (None, "-"):
        if kind == "oci-dir":
            raise click.UsageError("--format oci-dir needs -o DIR")
        if as_json or sys.stdout.isatty():
            raise click.UsageError("an archive is not for --json or a terminal: give -o FILE")
    from unionfuse.image.archives import save

    with opened() as store, progress(quiet=quiet) as watch:
        wanted = [_wanted(store, ref, platform, is_whole=all_platforms) for ref in refs]
        if kind == "oci-dir":
            with new_directory(Path(str(output))) as directory:
                save.save_oci_directory(store, wanted, directory, watch)
        else:
            write = save.save_oci_archive if kind == "oci-archive" else save.save_docker_archive
            with new_file(output) as file:
                write(store, wanted, file, watch)
    if as_json:
        print_json([_as_object(each) for each in wanted])


def _as_object(wanted: Wanted) -> dict[str, object]:
    name = wanted.reference
    return {
        "ref": None if name is None else str(name),
        "id": wanted.image.id,
        "digest": wanted.root.digest,
    }


def _wanted(store: Store, ref: str, platform: str | None, *, is_whole: bool) -> Wanted:
    from unionfuse.image.archives.save import Wanted
    from unionfuse.image.reference import Reference

    image = store.resolve(ref, platform_of(platform))
    name = store.name_of(ref)
    return Wanted(None if name is None else Reference.parse(name), image, is_whole)
