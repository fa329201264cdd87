"""Load images from a directory or a file (image-layout.md; docker's `save`)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import msgspec

from unionfuse.image import media_types
from unionfuse.image.archives.members import Members, read_members
from unionfuse.image.errors import BadReference, Malformed, NotFound
from unionfuse.image.layers.compression import detect
from unionfuse.image.manifest import (
    MAX_DOCUMENT,
    Descriptor,
    Index,
    Manifest,
    decode,
    encode,
    parse_document,
)
from unionfuse.image.reference import Reference
from unionfuse.image.store.image import MAX_INDEX_DEPTH
from unionfuse.image.store.store import unnamed_reference

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unionfuse.image.digest import Digest
    from unionfuse.image.layers.compression import Readable
    from unionfuse.image.store.blobs import Blobs
    from unionfuse.image.store.image import Image
    from unionfuse.image.store.store import Store
    from unionfuse.image.watch import Watch

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
_CHUNK = 1 << 20


class Loaded(NamedTuple):
    """An image that was loaded, and a name that it has now."""

    reference: str
    image: Image


class _Found(NamedTuple):
    """What an archive names: its names, which may be none, and the document."""

    names: tuple[Reference, ...]
    root: Descriptor


class _Saved(msgspec.Struct, rename="pascal"):
    """An image in manifest.json of docker's archive."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


def load_file(
    store: Store, file: Readable, total: int, names: tuple[Reference, ...], watch: Watch
) -> list[Loaded]:
    """Load what an archive has, of OCI or of docker.

    Args:
        total: bytes of it; 0 if that is not known.
        names: to be given to its one image, instead of those that it has there.

    Raises:
        Malformed, Corrupt, NotFound, Refused: as it is; nothing is named then.
    """
    members = read_members(file, store.blobs, watch, total)
    if "index.json" in members.documents:
        index = members.documents["index.json"]
        found = _of_layout(index, store.blobs, lambda _: None)
        if all(not each.names for each in found) and "manifest.json" in members.documents:
            found = _of_docker(members, store.blobs)
    elif "manifest.json" in members.documents:
        found = _of_docker(members, store.blobs)
    else:
        raise Malformed("this is no archive of images: neither index.json nor manifest.json in it")
    return _name(store, found, names, watch)


def load_directory(
    store: Store, directory: Path, names: tuple[Reference, ...], watch: Watch
) -> list[Loaded]:
    """Load what an image layout has; `names` as for `load_file`.

    Raises:
        Malformed, Corrupt, NotFound, Refused: as it is; nothing is named then.
    """
    index = directory / "index.json"
    if not index.exists():
        raise Malformed(f"{directory} is no image layout: it has no index.json")
    with _opened(index) as file:
        data = file.read(MAX_DOCUMENT + 1)

    def fetch(descriptor: Descriptor) -> None:
        _copy(directory, descriptor, store.blobs, watch)

    return _name(store, _of_layout(data, store.blobs, fetch), names, watch)


def _name(
    store: Store, found: list[_Found], names: tuple[Reference, ...], watch: Watch
) -> list[Loaded]:
    if not found:
        raise NotFound("there is no image in it")
    if names:
        if len({each.root.digest for each in found}) > 1:
            raise BadReference(f"it has {len(found)} images: a name can be given to one")
        found = [_Found(names, found[0].root)]
    # All are unpacked, and so verified, before the first is named.
    images = [store.complete(each.root, watch=watch) for each in found]
    loaded = []
    for each, image in zip(found, images, strict=True):
        for name in each.names or (unnamed_reference(image),):
            store.add(name, each.root, unpack=False)
            loaded.append(Loaded(str(name), image))
    return loaded


def _of_layout(data: bytes, blobs: Blobs, fetch: Callable[[Descriptor], None]) -> list[_Found]:
    index = parse_document(data, media_types.OCI_INDEX, "index.json")
    if not isinstance(index, Index):
        raise Malformed("index.json is no index")
    found: dict[Digest, _Found] = {}
    for entry in index.manifests:
        _fetch_below(entry, blobs, fetch, 0)
        known = found.get(entry.digest, _Found((), entry))
        found[entry.digest] = _Found((*known.names, *_names_of(entry)), known.root)
    return list(found.values())


def _fetch_below(
    root: Descriptor, blobs: Blobs, fetch: Callable[[Descriptor], None], depth: int
) -> None:
    """Fetch all that a document leads to; of an index, what is there of it."""
    if depth > MAX_INDEX_DEPTH:
        raise Malformed(f"index {root.digest} goes on for too deep")
    fetch(root)
    document = parse_document(blobs.read(root.digest), root.media_type, f"manifest {root.digest}")
    if isinstance(document, Manifest):
        for part in (document.config, *document.layers):
            fetch(part)
            if part.digest not in blobs:
                raise NotFound(f"blob {part.digest} is missing in it")
        return
    there = 0
    for entry in document.manifests:
        try:
            _fetch_below(entry, blobs, fetch, depth + 1)
            there += 1
        except NotFound:  # an index may name what was not saved with it
            continue
    if not there:
        raise NotFound(f"no image of the index {root.digest} is in it")


def _copy(directory: Path, descriptor: Descriptor, blobs: Blobs, watch: Watch) -> None:
    digest = descriptor.digest
    if digest in blobs:
        return
    path = directory / "blobs" / digest.replace(":", "/")
    try:
        file = _opened(path)
    except FileNotFoundError:
        raise NotFound(f"{directory} has no blob {digest}") from None
    with file, blobs.anew(digest, descriptor.size) as writer:
        while data := file.read(_CHUNK):
            writer.write(data)
            watch(f"copying {digest[:19]}", writer.size, descriptor.size)
        writer.commit()


def _opened(path: Path) -> BinaryIO:
    """Open a file of a layout. A pipe in its place would keep us waiting.

    Raises:
        Malformed: if it is no file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Malformed(f"{path} is no file")
    return open(fd, "rb")


def _names_of(entry: Descriptor) -> tuple[Reference, ...]:
    """Return the name that an entry of an index is annotated with.

    A bare tag, as image-layout.md would have it, is no name; containerd and docker have the whole
    name in an annotation of their own, podman and skopeo in that of the specification.
    """
    annotations = entry.annotations or {}
    for text in (annotations.get(CONTAINERD_NAME), annotations.get(REF_NAME)):
        if text and (":" in text or "/" in text):
            try:
                return (Reference.parse(text),)
            except BadReference:
                continue
    return ()


def _of_docker(members: Members, blobs: Blobs) -> list[_Found]:
    saved = decode(members.documents["manifest.json"], list[_Saved], "manifest.json")
    found = []
    for each in saved:
        names = tuple(Reference.parse(tag) for tag in each.repo_tags or ())
        config = members.digest(each.config)
        manifest = Manifest(
            Descriptor(media_types.OCI_CONFIG, config, blobs.size(config)),
            tuple(_layer(members.digest(name), blobs) for name in each.layers),
            media_type=media_types.OCI_MANIFEST,
        )
        data = encode(manifest)
        found.append(
            _Found(names, Descriptor(media_types.OCI_MANIFEST, blobs.put(data), len(data)))
        )
    return found


def _layer(digest: Digest, blobs: Blobs) -> Descriptor:
    with blobs.open(digest) as file:
        compression = detect(os.pread(file.fileno(), 4, 0))
    media_type = {
        "none": media_types.OCI_LAYER,
        "gzip": media_types.OCI_LAYER_GZIP,
        "zstd": media_types.OCI_LAYER_ZSTD,
    }[compression]
    return Descriptor(media_type, digest, blobs.size(digest))
