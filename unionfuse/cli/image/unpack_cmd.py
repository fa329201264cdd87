"""`unionfuse image unpack`."""

from __future__ import annotations

from pathlib import Path

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
from unionfuse.cli.image.output import new_directory

EPILOG = """\b
Without --bundle, DIR gets a directory for each layer, 1 the topmost, which `unionfuse mount` and
overlayfs take as lowers; with it, rootfs/ and config.json, for runc and crun.

\b
Examples:
  unionfuse image unpack debian:12 layers && unionfuse mount layers/1:layers/2 upper mnt
  unionfuse image unpack --bundle debian:12 bundle && crun run -b bundle name
"""


@click.command("unpack", epilog=EPILOG)
@click.argument("ref", metavar="REF")
@click.argument("target", metavar="DIR")
@click.option("--bundle", is_flag=True, help="Make an OCI bundle.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of an index.")
@quiet_option
@json_option
@reports_failures
def command(
    ref: str, target: str, bundle: bool, platform: str | None, quiet: bool, as_json: bool
) -> None:
    """Unpack an image into DIR, which is new or empty."""
    from unionfuse.image.bundle import runtime_config
    from unionfuse.image.unpack import unpack_layers, unpack_rootfs

    layers: list[Path] = []
    with opened() as store, progress(quiet=quiet) as watch:
        image = store.resolve(ref, platform_of(platform))
        with new_directory(Path(target)) as directory:
            if bundle:
                rootfs = directory / "rootfs"
                rootfs.mkdir(mode=0o755)
                unpack_rootfs(store, image, rootfs, watch)
                (directory / "config.json").write_bytes(runtime_config(image, rootfs))
            else:
                layers = unpack_layers(store, image, directory, watch)
    if as_json:
        paths = [str(Path(target, layer.name)) for layer in layers]
        print_json({"id": image.id, "digest": image.descriptor.digest, "layers": paths})
