"""What a container takes of an image in the store."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from unionfuse.container.create import Source
from unionfuse.image.config import RunConfig
from unionfuse.image.errors import NotFound
from unionfuse.image.store import lease
from unionfuse.image.store.store import Store
from unionfuse.layer.override import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def source_of(root: Path, text: str) -> Iterator[Source]:
    """Yield the image that `text` names; it stays in the store for the time of a `with` block.

    A container that is made meanwhile keeps it from then on, by its `uses`.

    Raises:
        ImageError: if there is none, or it can not be unpacked.
    """
    with Store.open(root) as store:
        image = store.resolve(text)
        try:
            layers = image.layers
        except NotFound:  # not unpacked yet; what does that takes long to load
            layers = store.unpack(image)
        digest = image.descriptor.digest.replace(":", "-")
        yield Source(
            image=text,
            image_id=image.id,
            manifest=image.descriptor.digest,
            config=image.config.config or RunConfig(),
            layers=layers,
            override=any(name_of(os.fsencode(layer)) for layer in layers),
            uses=(f"{lease.IMAGE}-{digest}",),
        )


def layer_sizes(root: Path) -> dict[str, int]:
    """Return the bytes of the files in each unpacked layer, by the path of its tree."""
    from unionfuse.image.store.unpacking import TREE

    with Store.open(root) as store:
        return {
            str(store.places.layers / name / TREE): facts.size
            for name, facts in store.database.layers().items()
        }
