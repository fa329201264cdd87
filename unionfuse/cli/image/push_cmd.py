"""`unionfuse image push`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from unionfuse.cli.errors import Failure, reports_failures, say
from unionfuse.cli.image.common import (
    json_option,
    opened,
    platform_of,
    print_json,
    progress,
    quiet_option,
)
from unionfuse.cli.image.transfers import Shown, at_registry, connection_options, registry_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from unionfuse.image.digest import Digest
    from unionfuse.image.reference import Reference
    from unionfuse.image.store.store import Store

EPILOG = """\b
The manifest and its layers go as they are in the store: the digest there is the digest here. Of
an index all images go if all are in the store, else the one for this machine, or for --platform.

\b
Examples:
  unionfuse image push registry.example:5000/team/app:1
  unionfuse image push localhost/mine:1 registry.example:5000/team/app:1
"""


@click.command("push", epilog=EPILOG)
@click.argument("ref", metavar="REF")
@click.argument("destination", metavar="[NEWREF]", required=False)
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="This image alone of an index.")
@registry_options
@quiet_option
@json_option
@reports_failures
def command(
    ref: str,
    destination: str | None,
    platform: str | None,
    jobs: int,
    quiet: bool,
    as_json: bool,
    **reach: Any,  # noqa: ANN401 - the options of `registry_options`, as it has them
) -> None:
    """Bring an image of the store to a registry, under its own name or as NEWREF."""
    from unionfuse.image.registry.push import PushOptions, push
    from unionfuse.image.registry.running import run

    target = at_registry(destination or ref)
    with opened() as store, progress(quiet=quiet) as watch:
        image = store.resolve(ref)
        if destination is None and target.digest is None:
            target = at_registry(_name(store, ref))
        options = PushOptions(
            connection_options(**reach),
            platform_of(platform),
            jobs,
            sources=_sources(store, target),
        )
        shown = Shown("push", watch)
        pushed = run(lambda: push(target, image.root, store.blobs, options, shown))
    if pushed.left_out:
        say(f"of the index {image.root.digest} one image was pushed: {pushed.descriptor.digest}")
    if as_json:
        print_json(
            {"ref": str(target), "digest": pushed.descriptor.digest, "blobs": shown.outcomes}
        )
        return
    tag = "" if target.tag is None else f":{target.tag}"
    click.echo(f"{target.name}{tag}@{pushed.descriptor.digest}")


def _name(store: Store, ref: str) -> str:
    name = store.name_of(ref)
    if name is None:
        raise Failure(f"{ref} is an id: give the name to push it under, too")
    return name


def _sources(store: Store, target: Reference) -> Mapping[Digest, Sequence[str]]:
    """Return, for each blob, the other repositories of the registry whose images have it."""
    from unionfuse.image.reference import Reference

    found: dict[Digest, list[str]] = {}
    for listed in store.images():
        names = (Reference.parse(name.reference) for name in listed.names)
        repositories = sorted(
            {name.repository for name in names if name.registry == target.registry}
        )
        for part in (listed.image.manifest.config, *listed.image.manifest.layers):
            found.setdefault(part.digest, []).extend(repositories)
    return found
