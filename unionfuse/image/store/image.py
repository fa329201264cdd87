"""One image as its documents tell it: a manifest, its config, its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from unionfuse.image import media_types
from unionfuse.image.config import chain_ids, parse_config
from unionfuse.image.errors import Malformed, NotFound, Refused
from unionfuse.image.manifest import Manifest, parse_document
from unionfuse.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unionfuse.image.config import ImageConfig
    from unionfuse.image.digest import Digest
    from unionfuse.image.manifest import Descriptor, Index
    from unionfuse.image.store.blobs import Blobs

MAX_INDEX_DEPTH = 4  # of an index in an index
MAX_INDEX_DOCUMENTS = 1000


class Layer(NamedTuple):
    """One layer of an image: how it travels, what it is, and the name of the stack up to it."""

    descriptor: Descriptor
    diff_id: Digest
    chain_id: Digest


@record
class Image:
    """An image in a store.

    Attributes:
        root: what its name means: the manifest, or an index with it.
        descriptor: of the manifest.
        config_data: the bytes of the config, whose digest is the image's id.
        stack: its layers, the bottom first.
        layers_root: the directory that has them unpacked.
    """

    root: Descriptor
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    config_data: bytes
    stack: tuple[Layer, ...]
    layers_root: Path

    @property
    def id(self) -> Digest:
        """The digest of the config."""
        return self.manifest.config.digest

    @property
    def layers(self) -> tuple[Path, ...]:
        """The trees of the layers, the TOP first, as `lowerdir=` has them.

        Raises:
            NotFound: if not all of them are unpacked.
        """
        return tuple(directory / "fs" for directory in reversed(self.layer_directories()))

    def layer_directories(self) -> list[Path]:
        """Return the directories of layers/, the bottom first.

        Raises:
            NotFound: if not all of them are there.
        """
        found = []
        for layer in self.stack:
            directory = unpacked_at(self.layers_root, layer)
            if directory is None:
                raise NotFound(f"layer {layer.diff_id} of image {self.id} is not unpacked")
            found.append(directory)
        return found


def directory_name(digest: Digest, *, is_chain: bool = False) -> str:
    """Return the name in layers/ of a layer by diff_id, or of one by chain_id."""
    return ("chain-" if is_chain else "") + digest.replace(":", "-")


def unpacked_at(layers_root: Path, layer: Layer) -> Path | None:
    """Return the directory of a layer; None if it is not unpacked."""
    for name in (directory_name(layer.diff_id), directory_name(layer.chain_id, is_chain=True)):
        if (layers_root / name).exists():
            return layers_root / name
    return None


def read_document(blobs: Blobs, descriptor: Descriptor) -> Manifest | Index:
    """Read a manifest or an index of the store.

    Raises:
        NotFound, Corrupt, Malformed, Refused: as it is.
    """
    what = f"manifest {descriptor.digest}"
    data = blobs.read(descriptor.digest)
    if descriptor.size and len(data) != descriptor.size:
        raise Malformed(f"{what} has {len(data)} bytes, and is named with {descriptor.size}")
    return parse_document(data, descriptor.media_type or None, what)


def read_image(
    blobs: Blobs, layers_root: Path, descriptor: Descriptor, root: Descriptor | None = None
) -> Image:
    """Read the documents of an image.

    Raises:
        NotFound, Corrupt, Malformed, Refused: as they are.
    """
    manifest = read_document(blobs, descriptor)
    if not isinstance(manifest, Manifest):
        raise Malformed(f"{descriptor.digest} is an index of images, not an image")
    config_type = manifest.config.media_type
    if config_type not in media_types.CONFIGS:
        raise Refused(f"{descriptor.digest} is no image of a root filesystem, but {config_type}")
    data = blobs.read(manifest.config.digest)
    config = parse_config(data, f"config {manifest.config.digest}")
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise Malformed(
            f"manifest {descriptor.digest} has {len(manifest.layers)} layers, "
            f"its config {len(diff_ids)}"
        )
    stack = tuple(map(Layer, manifest.layers, diff_ids, chain_ids(diff_ids)))
    return Image(root or descriptor, descriptor, manifest, config, data, stack, layers_root)


def manifests_below(blobs: Blobs, root: Descriptor) -> Iterator[Descriptor]:
    """Yield the manifests that a document means: itself, or those of an index that are there.

    Raises:
        NotFound, Corrupt, Malformed, Refused: as the documents are; Refused for an index that
            goes on for too long.
    """
    yield from _below(blobs, root, 0, set())


def _below(blobs: Blobs, root: Descriptor, depth: int, seen: set[Digest]) -> Iterator[Descriptor]:
    if depth > MAX_INDEX_DEPTH or len(seen) > MAX_INDEX_DOCUMENTS:
        raise Refused(f"index {root.digest} has more in it than is looked through")
    document = read_document(blobs, root)
    if isinstance(document, Manifest):
        yield root
        return
    for entry in document.manifests:
        if entry.digest not in seen and blobs.path(entry.digest).exists():
            seen.add(entry.digest)
            yield from _below(blobs, entry, depth + 1, seen)
