"""gc: remove what no name and no lease leads to (mark and sweep).

Marking and the taking away happen under the exclusive ROOT/lock: nobody can begin to use
something meanwhile. What is taken away goes by a rename into a directory of tmp/, and is removed
from there when the lock is free again. A crash leaves that directory to the next sweep.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unionfuse.image.digest import Digest
from unionfuse.image.errors import ImageError, NotFound, StoreError
from unionfuse.image.manifest import Descriptor, Manifest
from unionfuse.image.store import lease
from unionfuse.image.store.build_cache import BuildCache
from unionfuse.image.store.image import directory_name, read_document, read_image

if TYPE_CHECKING:
    from unionfuse.image.store.lease import Use
    from unionfuse.image.store.store import Store


class Collected(NamedTuple):
    """What was removed, or would be.

    Attributes:
        size: bytes of the blobs, the layers and what was left in tmp/.
    """

    blobs: list[Digest]
    layers: list[str]
    size: int


class _Marks:
    """What is to be kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.blobs: set[Digest] = set()
        self.layers: set[str] = set()

    def walk(self, root: Descriptor, *, is_needed: bool) -> None:
        """Mark all that a document leads to; what an index names and is not here is no loss."""
        if root.digest in self.blobs:
            return
        self.blobs.add(root.digest)
        if not self._store.blobs.path(root.digest).exists():
            if is_needed:
                raise NotFound(f"manifest {root.digest} is missing")
            return
        document = read_document(self._store.blobs, root)
        if not isinstance(document, Manifest):
            for entry in document.manifests:
                self.walk(entry, is_needed=False)
            return
        self.blobs.add(document.config.digest)
        self.blobs.update(layer.digest for layer in document.layers)
        try:
            image = read_image(self._store.blobs, self._store.places.layers, root)
        except NotFound:  # an index may name images that were never pulled whole
            return
        except ImageError:
            # What is no image of a root filesystem has no layers to unpack; a config that is
            # damaged is another matter, since it alone tells which layers these are.
            self._store.blobs.read(document.config.digest)
            return
        for layer in image.stack:
            self.layers.add(directory_name(layer.diff_id))
            self.layers.add(directory_name(layer.chain_id, is_chain=True))


def collect(
    store: Store, *, partials: bool = True, build_cache: bool = False, dry_run: bool = False
) -> Collected:
    """Remove what is not in use; other commands may go on meanwhile.

    Args:
        partials: also what is left of transfers that were cut, and would be taken up.
        build_cache: also the layers that builds keep for their next time.
        dry_run: only say what would be removed.

    Raises:
        StoreError: if a document is damaged, so that it is not known what is in use. Nothing is
            removed then.
    """
    places = store.places
    with lease.locked(places.lock, fcntl.LOCK_EX):
        marks = _mark(store)
        cache = BuildCache(places.root)
        if not build_cache:
            _mark_cached(marks, cache)
        blobs = [blob for blob in store.blobs if blob not in marks.blobs]
        directories = sorted(set(os.listdir(places.layers)) - marks.layers)
        size = sum(store.blobs.path(blob).stat().st_size for blob in blobs)
        facts = store.database.layers()
        size += sum(facts[name].size for name in directories if name in facts)
        if dry_run:
            return Collected(blobs, directories, size)
        dead = Path(tempfile.mkdtemp(prefix="dead-", dir=places.tmp))
        if build_cache:
            cache.clear()
        # Locked, or the sweep of another command would empty it at the same time.
        with lease.locked(dead, fcntl.LOCK_EX), store.database.transaction():
            for blob in blobs:
                store.blobs.path(blob).rename(dead / blob.replace(":", "-"))
            for name in directories:
                (places.layers / name).rename(dead / f"layer-{name}")
                store.database.remove_layer(name)
    lease.remove_if_dead(dead)
    size += lease.sweep(places.tmp, partials=partials)
    return Collected(blobs, directories, size)


def layers_in_use(store: Store) -> set[str]:
    """Return the directories of layers/ that mounts and commands use; the caller has the lock."""
    marks = _Marks(store)
    with contextlib.suppress(ImageError):  # a document that is damaged
        _mark_leased(marks, lease.live_uses(store.places.tmp))
    return marks.layers


def _mark(store: Store) -> _Marks:
    marks = _Marks(store)
    # Leases first: what a command has named before its lease ended is found by that name.
    uses = lease.live_uses(store.places.tmp) | lease.kept_uses(store.places.containers)
    try:
        for name in store.database.names():
            marks.walk(name.descriptor, is_needed=True)
        _mark_leased(marks, uses)
    except ImageError as err:
        raise StoreError(f"{err}; nothing is removed: see `unionfuse image verify`") from None
    return marks


def _mark_cached(marks: _Marks, cache: BuildCache) -> None:
    for record in cache.records():
        if record.descriptor and record.diff_id and record.chain_id:
            marks.blobs.add(record.descriptor.digest)
            marks.layers.add(directory_name(record.diff_id))
            marks.layers.add(directory_name(record.chain_id, is_chain=True))


def _mark_leased(marks: _Marks, uses: set[Use]) -> None:
    for use in uses:
        if use.kind == lease.LAYER:
            marks.layers.add(use.name)
        elif use.kind == lease.IMAGE:
            digest = Digest(use.name.replace("-", ":", 1))
            marks.walk(Descriptor("", digest, 0), is_needed=False)
    for use in uses:  # afterwards: what is marked is not walked
        if use.kind == lease.BLOB:
            marks.blobs.add(Digest(use.name.replace("-", ":", 1)))
