"""Keep what a container has become: as an image, or as a tar."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from unionfuse.container import init_layer, view
from unionfuse.image.digest import parse_digest
from unionfuse.image.layers.pack import PackOptions, pack_merged, pack_upper
from unionfuse.image.making.config import source_date_epoch
from unionfuse.image.making.image import Made, new_layer, put_on
from unionfuse.image.manifest import Descriptor
from unionfuse.image.store.image import read_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.container.state import Container
    from unionfuse.image.making.image import Recipe
    from unionfuse.image.store.image import Image
    from unionfuse.image.store.store import Store


def base_of(store: Store, container: Container) -> Image:
    """Return the image of a container, whether a name leads to it or not.

    Raises:
        ImageError: if it is damaged.
    """
    digest = parse_digest(container.record.manifest)
    return read_image(store.blobs, store.places.layers, Descriptor("", digest, 0))


def commit(store: Store, container: Container, recipe: Recipe) -> Made:
    """Make an image of the container's image and what the container has changed.

    The files of the init layer are the container's own: what it wrote to them is no part of it.

    Preconditions:
        `view.settled`.

    Raises:
        Refused: if no layer can say what has changed.
        StoreError: if there is no room.
    """
    base = base_of(store, container)
    with view.layers(container) as stack:
        layer, packed = new_layer(
            store,
            recipe,
            lambda write, options: pack_upper(
                stack, write, replace(options, left_out=init_layer.FILES)
            ),
        )
    image = put_on(store, base, [layer] if packed.entries else [], recipe)
    return Made(image, packed.entries, packed.notes)


def export(container: Container, write: Callable[[bytes], object]) -> tuple[str, ...]:
    """Write all that the container shows as one tar; return what was left out, a line each.

    Preconditions:
        `view.settled`.

    Raises:
        OSError: if it can not be read or written.
    """
    with view.layers(container) as stack:
        options = PackOptions(source_date_epoch=source_date_epoch(), with_root=True)
        return pack_merged(stack, write, options).notes
