"""Unpack a layer into its directory in layers/."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from unionfuse.image.errors import Refused
from unionfuse.image.store.image import unpacked_at

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.image.store.image import Layer
    from unionfuse.image.store.store import Store
    from unionfuse.image.watch import Watch


class Unpacked(NamedTuple):
    """A layer that is unpacked.

    Attributes:
        directory: in layers/; the tree is `fs` in it.
        is_new: whether it was not there before.
    """

    directory: Path
    is_new: bool


def unpack(store: Store, layer: Layer, below: list[Path] | None, watch: Watch) -> Unpacked | None:
    """See `Store.unpack_layer`."""
    directory = unpacked_at(store.places.layers, layer)
    if directory is None:
        raise Refused("layers are not unpacked yet")  # until image.layers is there
    return Unpacked(directory, False)
