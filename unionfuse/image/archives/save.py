"""Save images: as an OCI image layout, in a directory or a tar, or as docker's archive.

The tars are deterministic: the same images give the same bytes. Every blob is verified on its way.
"""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

from unionfuse.image import media_types
from unionfuse.image.archives.load import CONTAINERD_NAME, REF_NAME
from unionfuse.image.digest import Digester, algorithm_of, encoded_of
from unionfuse.image.errors import Corrupt, NotFound
from unionfuse.image.layers.compression import decompressed
from unionfuse.image.layers.member import Member
from unionfuse.image.layers.writer import TarWriter
from unionfuse.image.manifest import Descriptor, Index, Manifest, Platform, encode
from unionfuse.image.store.image import read_document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unionfuse.image.digest import Digest
    from unionfuse.image.reference import Reference
    from unionfuse.image.store.blobs import Blobs
    from unionfuse.image.store.image import Image, Layer
    from unionfuse.image.store.store import Store
    from unionfuse.image.watch import Watch

OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK = 1 << 20


class Wanted(NamedTuple):
    """An image to be saved.

    Attributes:
        reference: the name that it is to have there; None for none.
        is_whole: save the index that its name means, with all images of it that are here.
    """

    reference: Reference | None
    image: Image
    is_whole: bool = False

    @property
    def root(self) -> Descriptor:
        """The document that is saved."""
        return self.image.root if self.is_whole else self.image.descriptor


def save_oci_directory(store: Store, wanted: list[Wanted], target: Path, watch: Watch) -> None:
    """Write an image layout into `target`, a new or empty directory.

    Raises:
        NotFound, Corrupt: if a blob is missing, or damaged.
    """
    for digest, size in _blobs_of(store, wanted).items():
        path = target / "blobs" / algorithm_of(digest) / encoded_of(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for data in _verified(store.blobs, digest, watch, size):
                file.write(data)
    (target / "oci-layout").write_bytes(OCI_LAYOUT)
    (target / "index.json").write_bytes(_index(wanted))


def save_oci_archive(store: Store, wanted: list[Wanted], file: BinaryIO, watch: Watch) -> None:
    """Write an image layout as a tar, to a pipe too.

    Raises:
        NotFound, Corrupt: if a blob is missing, or damaged; what was written is no good then.
    """
    with _Tar(file) as tar:
        tar.add("oci-layout", OCI_LAYOUT)
        tar.add("index.json", _index(wanted))
        blobs = _blobs_of(store, wanted)
        for digest in sorted(blobs):
            name = f"blobs/{algorithm_of(digest)}/{encoded_of(digest)}"
            tar.stream(name, blobs[digest], _verified(store.blobs, digest, watch, blobs[digest]))


def save_docker_archive(store: Store, wanted: list[Wanted], file: BinaryIO, watch: Watch) -> None:
    """Write docker's archive, in which layers are not compressed.

    Raises:
        NotFound, Corrupt: if a blob is missing, or damaged; what was written is no good then.
    """
    images = {each.image.id: each.image for each in wanted}
    tags: dict[Digest, list[str]] = {image_id: [] for image_id in images}
    for each in wanted:
        if each.reference is not None and each.reference.tag is not None:
            tags[each.image.id].append(each.reference.familiar())  # as docker has it
    manifest = [
        {
            "Config": f"{encoded_of(image_id)}.json",
            "RepoTags": tags[image_id],
            "Layers": [f"{encoded_of(layer.diff_id)}.tar" for layer in image.stack],
        }
        for image_id, image in images.items()
    ]
    layers = {layer.diff_id: layer for image in images.values() for layer in image.stack}
    with _Tar(file) as tar:
        tar.add("manifest.json", json.dumps(manifest, separators=(",", ":")).encode())
        for image_id, image in images.items():
            tar.add(f"{encoded_of(image_id)}.json", image.config_data)
        sizes = {facts.diff_id: facts.tar_size for facts in store.database.layers().values()}
        for diff_id, layer in layers.items():
            size = sizes.get(diff_id)
            if size is None:
                size = sum(map(len, _tar_of(store.blobs, layer, watch)))
            tar.stream(f"{encoded_of(diff_id)}.tar", size, _tar_of(store.blobs, layer, watch))


def _index(wanted: list[Wanted]) -> bytes:
    entries = []
    for each in wanted:
        annotations = None
        if each.reference is not None:
            name = str(each.reference)
            annotations = {CONTAINERD_NAME: name, REF_NAME: name}
        config = each.image.config
        platform = None
        if not each.is_whole and config.architecture:
            platform = Platform(config.architecture, config.os, config.variant)
        root = each.root
        media_type = root.media_type or media_types.OCI_MANIFEST
        entries.append(Descriptor(media_type, root.digest, root.size, annotations, platform))
    return encode(Index(tuple(entries), media_type=media_types.OCI_INDEX))


def _blobs_of(store: Store, wanted: list[Wanted]) -> dict[Digest, int]:
    """Return the blobs that are to be saved, with their sizes (bytes)."""
    found: dict[Digest, int] = {}
    for each in wanted:
        _gather(store.blobs, each.root, found, is_needed=True)
    return found


def _gather(blobs: Blobs, root: Descriptor, found: dict[Digest, int], *, is_needed: bool) -> None:
    document = read_document(blobs, root)
    parts: tuple[Descriptor, ...] = ()
    if isinstance(document, Manifest):
        parts = (document.config, *document.layers)
        missing = [part.digest for part in parts if not blobs.path(part.digest).exists()]
        if missing and not is_needed:
            return
        if missing:
            raise NotFound(f"blob {missing[0]} is not in the store")
    found[root.digest] = root.size or blobs.size(root.digest)
    found.update((part.digest, part.size) for part in parts)
    if isinstance(document, Index):
        for entry in document.manifests:
            if entry.digest not in found and blobs.path(entry.digest).exists():
                _gather(blobs, entry, found, is_needed=False)


def _verified(blobs: Blobs, digest: Digest, watch: Watch, size: int) -> Iterator[bytes]:
    """Yield the bytes of a blob; raise Corrupt after the last of them if they are not its own."""
    digester = Digester(algorithm_of(digest))
    with blobs.open(digest) as file:
        while data := file.read(_CHUNK):
            digester.update(data)
            watch(f"writing {digest[:19]}", digester.size, size)
            yield data
    digester.check(digest, size, f"blob {digest}")


def _tar_of(blobs: Blobs, layer: Layer, watch: Watch) -> Iterator[bytes]:
    """Yield the tar of a layer; raise Corrupt after the last byte if it is another one."""
    descriptor = layer.descriptor
    digester = Digester(algorithm_of(layer.diff_id))
    compression = media_types.LAYER_COMPRESSION.get(descriptor.media_type)
    with blobs.open(descriptor.digest) as file:
        for data in decompressed(file, compression):  # type: ignore[arg-type] # of that table
            digester.update(data)
            watch(f"writing {layer.diff_id[:19]}", digester.size, 0)
            yield data
    digester.check(layer.diff_id, None, f"layer {layer.diff_id}")


class _Tar:
    """A deterministic tar of regular files."""

    def __init__(self, file: BinaryIO) -> None:
        self._tar = TarWriter(file.write)

    def add(self, name: str, data: bytes) -> None:
        self.stream(name, len(data), iter([data]))

    def stream(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        """Add a file whose bytes come by and by.

        Raises:
            Corrupt: if there are not `size` of them.
        """
        self._tar.add(Member(name.encode(), stat.S_IFREG, mode=0o644, size=size))
        left = size
        for data in pieces:
            left -= len(data)
            if left < 0:
                break
            self._tar.write(data)
        if left:
            raise Corrupt(f"{name} has not the {size} bytes that it had")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._tar.close()
