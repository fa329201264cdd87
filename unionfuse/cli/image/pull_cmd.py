"""`unionfuse image pull`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.image.common import (
    json_option,
    opened,
    platform_of,
    print_json,
    progress,
    quiet_option,
    tidy,
)
from unionfuse.cli.image.transfers import Shown, at_registry, connection_options, registry_options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unionfuse.image.manifest import Descriptor
    from unionfuse.image.reference import Reference
    from unionfuse.image.registry.pull import Pulled, PullOptions
    from unionfuse.image.store.store import Store
    from unionfuse.image.watch import Watch

EPILOG = """\b
Credentials are those of `podman login` and `docker login`, certificates those of certs.d of
either. What came of a pull that failed is kept, and the next one goes on from there.

\b
Examples:
  unionfuse image pull debian:12
  unionfuse image pull --platform linux/arm64 quay.io/podman/stable
  unionfuse image pull --tls-ca ca.pem registry.example:5000/team/app:1
"""


@click.command("pull", epilog=EPILOG)
@click.argument("ref", metavar="REF")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of an index.")
@click.option("--all-platforms", is_flag=True, help="Every image of an index, to push them all.")
@registry_options
@quiet_option
@json_option
@reports_failures
def command(
    ref: str,
    platform: str | None,
    all_platforms: bool,
    jobs: int,
    quiet: bool,
    as_json: bool,
    **reach: Any,  # noqa: ANN401 - the options of `registry_options`, as it has them
) -> None:
    """Get an image from a registry, verify and unpack it."""
    from unionfuse.image.errors import StoreError
    from unionfuse.image.registry.pull import PullOptions

    reference = at_registry(ref)
    wanted = platform_of(platform)
    options = PullOptions(connection_options(**reach), wanted, all_platforms, jobs)
    with opened() as store, progress(quiet=quiet) as watch:
        try:
            pulled, transfers = _pull(store, reference, options, watch)
        except StoreError:
            tidy(store, partials=True)  # where there is no room, it is in the way
            raise
        name = reference if reference.digest is None else reference.with_tag(None)
        image = store.add(name, pulled.root, unpack=False, platform=wanted)
    if as_json:
        print_json(
            {
                "ref": str(name),
                "id": image.id,
                "digest": pulled.root.digest,
                "manifest": pulled.descriptor.digest,
                "blobs": transfers.outcomes,
            }
        )
        return
    click.echo(f"{reference.name}{_tag(reference)}@{pulled.root.digest}")


def _tag(reference: Reference) -> str:
    return "" if reference.tag is None or reference.digest is not None else f":{reference.tag}"


def _pull(
    store: Store, reference: Reference, options: PullOptions, watch: Watch
) -> tuple[Pulled, Shown]:
    from unionfuse.image.registry.pull import pull
    from unionfuse.image.registry.running import run

    transfers = Shown("pull", watch)
    options = replace(options, on_layer=_unpacker(store, watch))
    return run(lambda: pull(reference, store.blobs, options, transfers)), transfers


def _unpacker(store: Store, watch: Watch) -> Callable[[Pulled, int, Callable[[], None]], None]:
    """Return what unpacks each layer while those above it are still on their way."""
    from unionfuse.image.config import chain_ids
    from unionfuse.image.store.image import Layer

    below: list[Path] = []

    def unpack(pulled: Pulled, number: int, check: Callable[[], None]) -> None:
        def watched(what: str, done: int, total: int) -> None:
            check()
            watch(what, done, total)

        diff_ids = pulled.config.rootfs.diff_ids
        descriptor = pulled.manifest.layers[number]
        layer = Layer(descriptor, diff_ids[number], chain_ids(diff_ids)[number])
        unpacked = store.unpack_layer(layer, below, watched)
        assert unpacked is not None, "what is below is known"
        below.append(unpacked.directory)

    return unpack


def pull_again(
    store: Store, name: str, descriptor: Descriptor, options: PullOptions, watch: Watch
) -> None:
    """Get what is missing of an image from the registry of its name, by its digest.

    Raises:
        NotFound: if it was made here.
        ImageError: as `pull` does.
    """
    from unionfuse.image.errors import ImageError, NotFound
    from unionfuse.image.reference import LOCALHOST, Reference
    from unionfuse.image.registry.pull import pull
    from unionfuse.image.registry.running import run
    from unionfuse.image.store.image import manifests_below

    reference = Reference.parse(name).with_tag(None)
    if reference.registry == LOCALHOST:
        raise NotFound(f"{name} was made here: there is no registry to pull it from")
    try:
        # of an index those images that the store had, which need not be for this machine
        roots = [entry.digest for entry in manifests_below(store.blobs, descriptor)]
    except ImageError:
        roots = []
    for digest in roots or [descriptor.digest]:
        wanted = reference.with_digest(digest)
        run(partial(pull, wanted, store.blobs, options, Shown("pull", watch)))
