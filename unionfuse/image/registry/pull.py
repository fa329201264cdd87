"""Get an image: its documents, then its blobs, several at once.

Nothing is named in the store here: what came stays, complete and verified blob by blob, and is
taken up by the next pull if this one fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from unionfuse.image import media_types, platforms
from unionfuse.image.config import parse_config
from unionfuse.image.errors import Corrupt, Malformed, NotFound, Refused
from unionfuse.image.manifest import Descriptor, Index, Manifest, Platform, parse_document
from unionfuse.image.registry.connection import Connection, ConnectionOptions
from unionfuse.image.registry.download import download, is_present
from unionfuse.image.registry.progress import Progress
from unionfuse.image.registry.repository import Repository
from unionfuse.image.registry.running import stoppable

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.image.config import ImageConfig
    from unionfuse.image.digest import Digest
    from unionfuse.image.reference import Reference
    from unionfuse.image.store.blobs import Blobs

MAX_INDEX_DEPTH = 4
MAX_DOCUMENTS = 256
"""Manifests and indexes that one pull reads."""
MAX_DOCUMENT_BYTES = 64 << 20
"""Bytes of all of them, which are kept in memory."""
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class PullOptions:
    """What to pull, and how.

    Attributes:
        platform: which image of an index; None for the best one for this machine.
        all_platforms: pull every image of an index.
        at_once: blobs that are transferred at the same time.
        on_layer: is called, in a thread, as soon as a layer and all those below it are there:
            with the image, the number of the layer, the bottom (0) first, and what to call now
            and then: it raises what ends the call when the pull has failed. One at a time.
    """

    connection: ConnectionOptions = field(default_factory=ConnectionOptions)
    platform: Platform | None = None
    all_platforms: bool = False
    at_once: int = _AT_ONCE
    on_layer: Callable[[Pulled, int, Callable[[], None]], None] | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """An image that was pulled.

    Attributes:
        root: what the name means: the manifest, or an index with it.
        descriptor: of the manifest.
        config_data: the bytes of the config, whose digest is the image's id.
    """

    root: Descriptor
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    config_data: bytes = field(repr=False)


async def pull(
    reference: Reference,
    blobs: Blobs,
    options: PullOptions | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Have an image in the store.

    Raises:
        NotFound: if there is no such image, or none for the platform.
        Corrupt, Malformed, Refused: as what the registry has is.
        RegistryError: if it can not be reached, or does not let us in.
        StoreError: if there is no room.
    """
    options = options or PullOptions()
    connection = Connection(reference.registry, reference.repository, options.connection)
    async with connection:
        repository = Repository.to_pull(connection, reference.repository)
        return await _Pull(repository, blobs, options, progress or Progress()).run(reference)


class _Pull:
    def __init__(
        self, repository: Repository, blobs: Blobs, options: PullOptions, progress: Progress
    ) -> None:
        self._repository = repository
        self._blobs = blobs
        self._options = options
        self._progress = progress
        self._limiter = trio.CapacityLimiter(options.at_once)
        self._documents: dict[Digest, bytes] = {}

    async def run(self, reference: Reference) -> Pulled:
        root, document = await self._root(reference)
        if isinstance(document, Manifest):
            found = root, document
        else:
            wanted = self._options.platform or platforms.native()
            selected = await self._select(document, wanted, 0)
            if selected is None:
                shown = platforms.shown(wanted)
                raise NotFound(f"{reference} has no image for {shown}{_offered(document)}")
            found = selected
        pulled = await self._image(root, *found)
        others = await self._others(document, pulled) if self._options.all_platforms else []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._layers, pulled)
            # for layers of several images that are the same blob, `download` sees to it
            for descriptor in others:
                nursery.start_soon(self._blob, descriptor)
        # last: a manifest in the store has all that it names beside it
        for digest, data in self._documents.items():
            await trio.to_thread.run_sync(self._keep, digest, data)
        return pulled

    def _keep(self, digest: Digest, data: bytes) -> None:
        if digest in self._blobs:
            return
        with self._blobs.anew(digest, len(data)) as writer:
            writer.write(data)
            writer.commit()

    async def _root(self, reference: Reference) -> tuple[Descriptor, Manifest | Index]:
        asked = reference.digest or reference.tag
        assert asked is not None, "a reference has one of them"
        what = f"{reference}"
        if reference.digest is not None and reference.digest in self._blobs:
            data, said = self._blobs.read(reference.digest), None
            digest = reference.digest
        else:
            answer = await self._repository.document(asked)
            data, said, digest = answer.data, answer.media_type, answer.digest
        document = parse_document(data, said, what)
        media_type = document.media_type or said or _usual_type(document)
        self._remember(digest, data)
        return Descriptor(media_type, digest, len(data)), document

    def _remember(self, digest: Digest, data: bytes) -> None:
        self._documents[digest] = data
        if sum(map(len, self._documents.values())) > MAX_DOCUMENT_BYTES:
            raise Refused(f"more than {MAX_DOCUMENT_BYTES} bytes of manifests under one name")

    async def _entry(self, descriptor: Descriptor) -> Manifest | Index:
        """Get a document that an index names."""
        data = self._documents.get(descriptor.digest)
        if data is None and len(self._documents) >= MAX_DOCUMENTS:
            raise Refused(f"more than {MAX_DOCUMENTS} manifests under one name; no more are read")
        if data is None and is_present(descriptor, self._blobs):
            data = self._blobs.read(descriptor.digest)
        if data is None:
            data = (await self._repository.document(descriptor.digest)).data
        what = f"manifest {descriptor.digest} of {self._repository.name}"
        if len(data) != descriptor.size:
            raise Corrupt(f"{what} has {len(data)} bytes, not {descriptor.size}")
        self._remember(descriptor.digest, data)
        return parse_document(data, descriptor.media_type, what)

    async def _select(
        self, index: Index, wanted: Platform, depth: int
    ) -> tuple[Descriptor, Manifest] | None:
        """Return the image of an index for a platform, also one of an index in it."""
        _check_depth(depth)
        for entry in platforms.best(index.manifests, wanted):
            document = await self._entry(entry)
            if isinstance(document, Manifest):
                return entry, document
            found = await self._select(document, wanted, depth + 1)
            if found is not None:
                return found
        for entry in index.manifests:
            if entry.platform is None and entry.media_type in media_types.INDEXES:
                document = await self._entry(entry)
                if isinstance(document, Index):
                    found = await self._select(document, wanted, depth + 1)
                    if found is not None:
                        return found
        only = [entry for entry in index.manifests if entry.media_type in media_types.MANIFESTS]
        if depth == 0 and len(index.manifests) == 1 and only and only[0].platform is None:
            document = await self._entry(only[0])  # there is nothing to choose from
            if isinstance(document, Manifest):
                return only[0], document
        return None

    async def _image(self, root: Descriptor, descriptor: Descriptor, manifest: Manifest) -> Pulled:
        """Look at what a manifest names, and get its config."""
        what = f"manifest {descriptor.digest} of {self._repository.name}"
        check_image(manifest, what)
        await self._blob(manifest.config)
        config_data = self._blobs.read(manifest.config.digest)
        config = parse_config(config_data, f"config {manifest.config.digest}")
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise Malformed(
                f"{what} has {len(manifest.layers)} layers, "
                f"its config {len(config.rootfs.diff_ids)}"
            )
        return Pulled(root, descriptor, manifest, config, config_data)

    async def _others(self, document: Manifest | Index, pulled: Pulled) -> list[Descriptor]:
        """Return the blobs of all other manifests, each once."""
        blobs: dict[Digest, Descriptor] = {}
        waiting: list[tuple[Manifest | Index, int]] = [(document, 0)]
        while waiting:
            one, depth = waiting.pop()
            _check_depth(depth)
            if isinstance(one, Index):
                waiting += [(await self._entry(entry), depth + 1) for entry in one.manifests]
                continue
            for part in (one.config, *one.layers):
                if media_types.is_foreign(part.media_type):
                    raise Refused(_foreign(part, self._repository.name))
                blobs[part.digest] = part
        for layer in pulled.manifest.layers:
            blobs.pop(layer.digest, None)
        return list(blobs.values())

    async def _layers(self, pulled: Pulled) -> None:
        """Get the layers, the bottom first; tell of each when those below it are there too."""
        layers = pulled.manifest.layers
        arrived = {layer.digest: trio.Event() for layer in layers}

        async def get(layer: Descriptor) -> None:
            await self._blob(layer)
            arrived[layer.digest].set()

        async with trio.open_nursery() as nursery:
            for layer in dict.fromkeys(layers):
                nursery.start_soon(get, layer)
                await trio.lowlevel.checkpoint()  # lets them queue up in this order
            if (tell := self._options.on_layer) is None:
                return
            async with stoppable() as check:
                for number, layer in enumerate(layers):
                    await arrived[layer.digest].wait()
                    await trio.to_thread.run_sync(tell, pulled, number, check)

    async def _blob(self, descriptor: Descriptor) -> None:
        async with self._limiter:
            await download(self._repository, descriptor, self._blobs, self._progress)


def check_image(manifest: Manifest, what: str) -> None:
    """Look whether a manifest is that of an image whose layers can be had and unpacked.

    Raises:
        Refused: if it is of something else, or has layers that are not for us.
    """
    if manifest.config.media_type not in media_types.CONFIGS:
        kind = manifest.artifact_type or manifest.config.media_type
        raise Refused(f"{what} is no image, but {kind[:100]!r}")
    for layer in manifest.layers:
        if media_types.is_foreign(layer.media_type):
            raise Refused(_foreign(layer, what))
        if layer.media_type not in media_types.LAYER_COMPRESSION:
            raise Refused(f"{what} has a layer of type {layer.media_type[:100]!r}")


def _foreign(layer: Descriptor, what: str) -> str:
    return (
        f"{what} has the foreign layer {layer.digest}: its owner does not let registries "
        "give it away, and the URLs that it names are nobody's to follow"
    )


def _check_depth(depth: int) -> None:
    if depth >= MAX_INDEX_DEPTH:
        raise Refused(f"indexes in indexes, more than {MAX_INDEX_DEPTH} deep; refused")


def _offered(index: Index) -> str:
    """Say what there is, for who asked for what there is not."""
    names = sorted(
        {
            platforms.shown(entry.platform)
            for entry in index.manifests
            if entry.platform is not None and entry.platform.architecture not in ("", "unknown")
        }
    )
    return f"; it has {', '.join(names[:12])}" if names else ""


def _usual_type(document: Manifest | Index) -> str:
    if isinstance(document, Index):
        return media_types.OCI_INDEX
    return media_types.OCI_MANIFEST
