"""What is told of images: lists, sizes, histories, as plain records."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from unionfuse.image.store.image import unpacked_at

if TYPE_CHECKING:
    from unionfuse.image.digest import Digest
    from unionfuse.image.store.image import Image, Layer
    from unionfuse.image.store.store import Listed, Store


class Row(NamedTuple):
    """One name of an image, as `ls` shows it.

    Attributes:
        digest: of the manifest.
        size: bytes of the files in its layers; None if they are not unpacked.
        shared: how many of them are in layers that other images have too.
        layers: diff_ids, the bottom first.
    """

    ref: str
    id: Digest
    digest: Digest
    platform: str
    created: str | None
    size: int | None
    shared: int
    layers: tuple[Digest, ...]


class Step(NamedTuple):
    """One step of a history, with the layer that it has made.

    Attributes:
        size: bytes of the files in that layer; None if there is none, or it is not unpacked.
    """

    created: str | None
    created_by: str
    comment: str
    diff_id: Digest | None
    size: int | None


class Sizes:
    """How large the layers of a store are, once they are unpacked."""

    def __init__(self, store: Store) -> None:
        self._facts = store.database.layers()

    def of(self, image: Image, layer: Layer) -> int | None:
        """Return the bytes of the files in a layer; None if it is not unpacked."""
        directory = unpacked_at(image.layers_root, layer)
        facts = None if directory is None else self._facts.get(directory.name)
        return None if facts is None else facts.size

    def of_image(self, image: Image) -> int | None:
        """Return the bytes of the files in all layers; None if one is not unpacked."""
        total = 0
        for layer in image.stack:
            size = self.of(image, layer)
            if size is None:
                return None
            total += size
        return total


def users_of_layers(listed: list[Listed]) -> Counter[Digest]:
    """Count the images that have each layer."""
    ids = {each.image.id: each.image for each in listed}
    return Counter(
        diff_id for image in ids.values() for diff_id in {layer.diff_id for layer in image.stack}
    )


def rows(store: Store) -> list[Row]:
    """Return a row for each name, in order."""
    listed = store.images()
    sizes, users = Sizes(store), users_of_layers(listed)
    found = []
    for image, names in listed:
        shared = sum(
            sizes.of(image, layer) or 0 for layer in image.stack if users[layer.diff_id] > 1
        )
        row = Row(
            "",
            image.id,
            image.descriptor.digest,
            platform_of(image),
            image.config.created,
            sizes.of_image(image),
            shared,
            tuple(layer.diff_id for layer in image.stack),
        )
        found += [row._replace(ref=name.reference) for name in names]
    return sorted(found, key=lambda row: row.ref)


def platform_of(image: Image) -> str:
    """Return the platform that the config tells, as OS/ARCH[/VARIANT]."""
    config = image.config
    return "/".join(part for part in (config.os, config.architecture, config.variant) if part)


def history(store: Store, image: Image) -> list[Step]:
    """Return the steps in which an image was made, the first one first.

    A config without a history has one step a layer, of which nothing else is known.
    """
    sizes = Sizes(store)
    layers = iter(image.stack)
    steps = []
    for step in image.config.history or ():
        layer = None if step.empty_layer else next(layers)
        steps.append(
            Step(
                step.created,
                step.created_by or "",
                step.comment or "",
                None if layer is None else layer.diff_id,
                None if layer is None else sizes.of(image, layer),
            )
        )
    steps += [Step(None, "", "", layer.diff_id, sizes.of(image, layer)) for layer in layers]
    return steps


def inspection(store: Store, image: Image, names: list[str]) -> dict[str, Any]:
    """Return all that is known of an image; `config` and `manifest` are its documents."""
    sizes = Sizes(store)
    layers = []
    for layer in image.stack:
        directory = unpacked_at(image.layers_root, layer)
        layers.append(
            {
                "diff_id": layer.diff_id,
                "chain_id": layer.chain_id,
                "digest": layer.descriptor.digest,
                "media_type": layer.descriptor.media_type,
                "compressed_size": layer.descriptor.size,
                "size": sizes.of(image, layer),
                "directory": None if directory is None else str(directory / "fs"),
            }
        )
    return {
        "id": image.id,
        "names": names,
        "digest": image.descriptor.digest,
        "media_type": image.descriptor.media_type,
        "root_digest": image.root.digest,
        "platform": platform_of(image),
        "created": image.config.created,
        "author": image.config.author,
        "size": sizes.of_image(image),
        "compressed_size": sum(layer.descriptor.size for layer in image.stack),
        "layers": layers,
        "config": msgspec.json.decode(image.config_data),
        "manifest": msgspec.json.decode(store.blobs.read(image.descriptor.digest)),
    }


@dataclass
class Branch:
    """A layer on those below it, and what is on it.

    Attributes:
        names: of the images of which it is the topmost layer.
        size: bytes of its files; None if it is not unpacked.
    """

    diff_id: Digest
    chain_id: Digest
    size: int | None
    names: list[str] = field(default_factory=list)
    above: list[Branch] = field(default_factory=list)


def tree(store: Store) -> list[Branch]:
    """Return the bottom layers, with all that is built on them."""
    sizes = Sizes(store)
    bottoms: list[Branch] = []
    known: dict[Digest, Branch] = {}
    for image, names in store.images():
        above, branch = bottoms, None
        for layer in image.stack:
            branch = known.get(layer.chain_id)
            if branch is None:
                branch = Branch(layer.diff_id, layer.chain_id, sizes.of(image, layer))
                known[layer.chain_id] = branch
                above.append(branch)
            above = branch.above
        if branch is not None:
            branch.names += [name.reference for name in names]
    return bottoms
