"""Bring an image of the store to a registry: its blobs, several at once, then its documents.

The documents go as they are in the store, byte by byte: the digest there is the digest here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from unionfuse.image import media_types, platforms
from unionfuse.image.errors import BadReference, NotFound, Refused
from unionfuse.image.manifest import Descriptor, Index, Manifest, Platform, parse_document
from unionfuse.image.registry.connection import Connection, ConnectionOptions
from unionfuse.image.registry.progress import Progress
from unionfuse.image.registry.pull import MAX_DOCUMENTS, MAX_INDEX_DEPTH
from unionfuse.image.registry.repository import Repository
from unionfuse.image.registry.upload import Sizes, UploadOptions, upload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from unionfuse.image.digest import Digest
    from unionfuse.image.reference import Reference
    from unionfuse.image.store.blobs import Blobs

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How to push.

    Attributes:
        platform: which image of an index that is not complete here; None for the best one for
            this machine. With one, of a complete index too that image alone is pushed.
        at_once: blobs that are transferred at the same time.
        sources: for a blob, other repositories of the same registry that may have it.
    """

    connection: ConnectionOptions = field(default_factory=ConnectionOptions)
    platform: Platform | None = None
    at_once: int = _AT_ONCE
    sizes: Sizes = field(default_factory=Sizes)
    sources: Mapping[Digest, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was pushed.

    Attributes:
        descriptor: what the name means at the registry now.
        outcomes: how many blobs were transferred, mounted or there (`progress`).
        left_out: whether only one image was pushed of an index that has more.
    """

    descriptor: Descriptor
    outcomes: Mapping[str, int]
    left_out: bool


@dataclass(slots=True)
class _Plan:
    """What is to be pushed: blobs in any order, documents in this one."""

    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    documents: dict[Digest, tuple[Descriptor, bytes]] = field(default_factory=dict)


async def push(
    reference: Reference,
    root: Descriptor,
    blobs: Blobs,
    options: PushOptions | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Push the image or the index `root` of the store under a name.

    Raises:
        NotFound: if the store does not have all of it.
        Corrupt: if what the store has is damaged.
        Refused: if it has layers that are not to be given to a registry.
        RegistryError: if the registry can not be reached, or does not take it.
    """
    options = options or PushOptions()
    plan, descriptor = _plan(root, blobs, options.platform)
    if reference.digest is not None and reference.digest != descriptor.digest:
        raise BadReference(f"{reference} can not name {descriptor.digest}")
    connection = Connection(reference.registry, reference.repository, options.connection)
    async with connection:
        repository = Repository.to_push(connection, reference.repository)
        outcomes = await _push_blobs(repository, plan, blobs, options, progress or Progress())
        for entry, data in plan.documents.values():
            name: str = entry.digest
            if entry.digest == descriptor.digest and reference.tag is not None:
                name = reference.tag
            await repository.put_document(name, data, entry.media_type, entry.digest)
    return Pushed(descriptor, outcomes, descriptor.digest != root.digest)


async def _push_blobs(
    repository: Repository, plan: _Plan, blobs: Blobs, options: PushOptions, progress: Progress
) -> Mapping[str, int]:
    outcomes: Counter[str] = Counter()
    limiter = trio.CapacityLimiter(options.at_once)

    async def one(descriptor: Descriptor) -> None:
        async with limiter:
            how = UploadOptions(options.sizes, options.sources.get(descriptor.digest, ()))
            outcomes[await upload(repository, descriptor, blobs, how, progress)] += 1

    async with trio.open_nursery() as nursery:
        for descriptor in plan.blobs.values():
            nursery.start_soon(one, descriptor)
    return outcomes


def _plan(root: Descriptor, blobs: Blobs, platform: Platform | None) -> tuple[_Plan, Descriptor]:
    """Return what to push, and what the name is to mean."""
    plan = _Plan()
    if platform is None:
        try:
            _add(plan, root, blobs, 0)
        except NotFound:
            if root.media_type not in media_types.INDEXES:
                raise
        else:
            return plan, root
    chosen = _choose(root, blobs, platform or platforms.native(), 0)
    if chosen is None:
        shown = platforms.shown(platform or platforms.native())
        raise NotFound(f"{root.digest} is not in the store as a whole, nor its image for {shown}")
    plan = _Plan()
    _add(plan, chosen, blobs, 0)
    return plan, chosen


def _read(descriptor: Descriptor, blobs: Blobs, depth: int) -> tuple[bytes, Manifest | Index]:
    if depth > MAX_INDEX_DEPTH:
        raise Refused(f"indexes in indexes, more than {MAX_INDEX_DEPTH} deep; refused")
    data = blobs.read(descriptor.digest)
    return data, parse_document(data, descriptor.media_type, f"manifest {descriptor.digest}")


def _add(plan: _Plan, descriptor: Descriptor, blobs: Blobs, depth: int) -> None:
    """Add a document and all that it needs, which goes before it."""
    if descriptor.digest in plan.documents:
        return
    if len(plan.documents) >= MAX_DOCUMENTS:
        raise Refused(f"more than {MAX_DOCUMENTS} manifests under one name; no more are pushed")
    data, document = _read(descriptor, blobs, depth)
    if isinstance(document, Index):
        for entry in document.manifests:
            _add(plan, entry, blobs, depth + 1)
    else:
        for part in (document.config, *document.layers):
            if media_types.is_foreign(part.media_type):
                raise Refused(
                    f"manifest {descriptor.digest} has the foreign layer {part.digest}: "
                    "its owner does not let registries give it away"
                )
            blobs.size(part.digest)  # raises where it is missing
            plan.blobs[part.digest] = part
    plan.documents[descriptor.digest] = (descriptor, data)


def _choose(root: Descriptor, blobs: Blobs, wanted: Platform, depth: int) -> Descriptor | None:
    """Return the image for a platform that the store has of an index."""
    _, document = _read(root, blobs, depth)
    if isinstance(document, Manifest):
        return root
    unnamed = [entry for entry in document.manifests if entry.platform is None]
    for entry in (*platforms.best(document.manifests, wanted), *unnamed):
        if blobs.path(entry.digest).exists():
            chosen = _choose(entry, blobs, wanted, depth + 1)
            if chosen is not None:
                return chosen
    return None
