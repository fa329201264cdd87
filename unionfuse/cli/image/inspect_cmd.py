"""`unionfuse image inspect`."""

from __future__ import annotations

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.image.common import json_option, opened, platform_of, print_json

EPILOG = """\b
Examples:
  unionfuse image inspect debian:12 | jq -r '.[].config.config.Env[]'
  unionfuse image inspect debian:12 | jq -r '.[].layers[].directory'
"""


@click.command("inspect", epilog=EPILOG)
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of an index.")
@json_option
@reports_failures
def command(refs: tuple[str, ...], platform: str | None, as_json: bool) -> None:
    """Print all that is known of images, as a JSON list: ids, layers, sizes, config, manifest.

    (`--json` is for likeness with other commands: there is no other form.)
    """
    from unionfuse.image.describe import inspection

    with opened() as store:
        named: dict[str, list[str]] = {}
        for image, names in store.images():
            named.setdefault(image.id, []).extend(name.reference for name in names)
        found = []
        for ref in refs:
            image = store.resolve(ref, platform_of(platform))
            found.append(inspection(store, image, sorted(named.get(image.id, []))))
    print_json(found)
