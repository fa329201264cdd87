"""Put a new layer on an image, or make an image of one layer."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unionfuse.image import media_types
from unionfuse.image.errors import Refused
from unionfuse.image.layers.compression import Compression, Compressor
from unionfuse.image.layers.pack import PackOptions, pack_merged, pack_upper
from unionfuse.image.making.config import Changes, new_config, source_date_epoch
from unionfuse.image.manifest import Descriptor, Manifest, encode
from unionfuse.image.watch import Watch, unwatched
from unionfuse.layer.stack import LayerStack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unionfuse.image.digest import Digest
    from unionfuse.image.layers.pack import Packed
    from unionfuse.image.manifest import Platform
    from unionfuse.image.reference import Reference
    from unionfuse.image.store.image import Image
    from unionfuse.image.store.store import Store

LAYER_TYPES = {
    "none": media_types.OCI_LAYER,
    "gzip": media_types.OCI_LAYER_GZIP,
    "zstd": media_types.OCI_LAYER_ZSTD,
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a new image is to be.

    Attributes:
        reference: its name.
        changes: of the config of its base.
        compression: of a new layer.
        platform: of an image without a base; None for this machine's.
        watch: is told how it goes.
    """

    reference: Reference
    changes: Changes = field(default_factory=Changes)
    compression: Compression = "gzip"
    platform: Platform | None = None
    watch: Watch = unwatched


@dataclass(frozen=True, slots=True)
class NewLayer:
    """A layer that was put into the store as a blob."""

    descriptor: Descriptor
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class Made:
    """An image that was made.

    Attributes:
        entries: of its new layer; 0 if it has none.
        notes: what was left out of it, a line each.
    """

    image: Image
    entries: int
    notes: tuple[str, ...]


def commit(store: Store, upper: Path, base: Image | None, recipe: Recipe) -> Made:
    """Make an image of `base` and what an upper changes; nothing but that is read of files.

    Args:
        store: where.
        upper: nobody changes it meanwhile, and all that was written is in it.
        base: what is below it; None for nothing.
        recipe: what it is to be.

    Raises:
        Refused: if no layer can say what the upper has.
        StoreError: if there is no room.
    """
    lowers = () if base is None else store.unpack(base, recipe.watch)
    with opened_stack(upper, lowers) as stack:
        layer, packed = new_layer(
            store, recipe, lambda write, options: pack_upper(stack, write, options)
        )
    layers = [] if packed.entries == 0 and base is not None else [layer]
    image = put_on(store, base, layers, recipe)
    return Made(image, packed.entries, packed.notes)


def squash(store: Store, base: Image, recipe: Recipe) -> Made:
    """Make an image that shows what `base` does, in one layer; raises as `commit`."""
    lowers = store.unpack(base, recipe.watch)
    with opened_stack(None, lowers) as stack:
        layer, packed = new_layer(
            store,
            recipe,
            lambda write, options: pack_merged(stack, write, options),
            with_root=True,
        )
    config = new_config(base, [layer.diff_id], recipe.changes, keeps_history=False)
    image = _named(store, config, (layer.descriptor,), recipe)
    return Made(image, packed.entries, packed.notes)


def new_layer(
    store: Store,
    recipe: Recipe,
    pack: Callable[[Callable[[bytes], object], PackOptions], Packed],
    *,
    with_root: bool = False,
) -> tuple[NewLayer, Packed]:
    """Put a layer that `pack` writes into the store; `with_root`: with an entry for the root."""
    done = 0
    with store.blobs.new() as writer:
        compressor = Compressor(writer.write, recipe.compression)

        def write(data: bytes) -> None:
            nonlocal done
            compressor.write(data)
            done += len(data)
            recipe.watch("packing", done, 0)

        packed = pack(write, PackOptions(source_date_epoch(), with_root))
        compressor.close()
        size = writer.size
        digest = writer.commit()
    descriptor = Descriptor(LAYER_TYPES[recipe.compression], digest, size)
    return NewLayer(descriptor, packed.diff_id), packed


def put_on(store: Store, base: Image | None, layers: list[NewLayer], recipe: Recipe) -> Image:
    """Name an image of `base`, if there is one, with new layers on it."""
    below = () if base is None else base.stack
    diff_ids = [layer.diff_id for layer in below] + [layer.diff_id for layer in layers]
    config = new_config(base, diff_ids, recipe.changes, platform=recipe.platform)
    descriptors = (
        *(_as_oci(layer.descriptor) for layer in below),
        *(layer.descriptor for layer in layers),
    )
    return _named(store, config, descriptors, recipe)


def _named(
    store: Store,
    config: bytes,
    layers: tuple[Descriptor, ...],
    recipe: Recipe,
) -> Image:
    config_digest = store.blobs.put(config)
    manifest = encode(
        Manifest(
            Descriptor(media_types.OCI_CONFIG, config_digest, len(config)),
            layers,
            media_type=media_types.OCI_MANIFEST,
        )
    )
    descriptor = Descriptor(media_types.OCI_MANIFEST, store.blobs.put(manifest), len(manifest))
    return store.add(recipe.reference, descriptor, watch=recipe.watch)


def _as_oci(descriptor: Descriptor) -> Descriptor:
    """Return a layer of the base as an OCI manifest has it: the bytes are the same."""
    compression = media_types.LAYER_COMPRESSION.get(descriptor.media_type)
    if compression is None:
        raise Refused(f"layer {descriptor.digest} is of an unknown type: {descriptor.media_type}")
    return Descriptor(LAYER_TYPES[compression], descriptor.digest, descriptor.size)


@contextlib.contextmanager
def opened_stack(upper: Path | None, lowers: tuple[Path, ...]) -> Iterator[LayerStack]:
    """Open layers, the topmost lower first, for the time of a `with` block."""
    stack = LayerStack.open(
        None if upper is None else os.fsencode(upper), [os.fsencode(lower) for lower in lowers]
    )
    try:
        yield stack
    finally:
        stack.close()
