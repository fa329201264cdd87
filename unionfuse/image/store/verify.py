"""Verify a store: every blob and every layer is hashed anew, every name followed.

What is looked at is in use meanwhile, or what another command removes would seem to be damaged.

What is damaged is taken out on request, so that it can come again: a layer directory out of its
blob, a blob out of the registry. Nothing else is lost by that: what it is taken for, it was not.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from unionfuse.image import media_types
from unionfuse.image.digest import Digest, Digester, algorithm_of, parse_digest
from unionfuse.image.errors import Corrupt, ImageError, Malformed, StoreError, reason
from unionfuse.image.layers.index import read_index
from unionfuse.image.layers.verify import verify_layer
from unionfuse.image.manifest import Manifest, parse_document
from unionfuse.image.store import lease, names
from unionfuse.image.store.collect import layers_in_use
from unionfuse.image.store.image import (
    directory_name,
    manifests_below,
    read_image,
    unpacked_at,
)
from unionfuse.image.store.lease import Use
from unionfuse.image.store.unpacking import INDEX, TREE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.image.store.image import Image
    from unionfuse.image.store.store import Store
    from unionfuse.image.watch import Watch

_CHUNK = 1 << 20
_MAX_DIFFERENCES = 5  # told of one layer


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong in a store.

    Attributes:
        kind: blob, layer, name, index or database.
        what: its digest, its directory in layers/, or the name.
        text: what is wrong with it.
        names: of the images that have it.
        mend: what makes it right.
    """

    kind: str
    what: str
    text: str
    names: tuple[str, ...]
    mend: str


class Verification:
    """One look through a store.

    Attributes:
        blobs, layers: how many were looked at.
    """

    def __init__(self, store: Store, watch: Watch) -> None:
        """Look through `store`, telling `watch` how it goes."""
        self._store = store
        self._watch = watch
        self.blobs = 0
        self.layers = 0
        self._users: dict[str, list[str]] = {}

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong, as it is found.

        Raises:
            OSError, StoreError: if something can not be read at all.
        """
        damage = self._store.database.problem()
        if damage is not None:
            mend = "`unionfuse image verify --repair` makes it anew"
            yield Problem("database", "store.db", damage, (), mend)
            return
        text = names.problem(self._store.database, self._store.places.index)
        if text is not None:
            mend = "`unionfuse image verify --repair` writes it anew"
            yield Problem("index", "index.json", text, (), mend)
        yield from self._names()
        for digest in sorted(self._store.blobs):
            self.blobs += 1
            yield from self._blob(digest)
        for name in sorted(os.listdir(self._store.places.layers)):
            self.layers += 1
            yield from self._layer(name)

    def _names(self) -> Iterator[Problem]:
        """Follow every name, and note what has which names."""
        for name in self._store.database.names():
            self._store.use(Use(lease.IMAGE, directory_name(name.descriptor.digest)))
            text = None
            try:
                images = [
                    read_image(self._store.blobs, self._store.places.layers, entry)
                    for entry in manifests_below(self._store.blobs, name.descriptor)
                    if not _is_partial(self._store, entry.digest)
                ]
                if not images:
                    text = "no image of the index is here whole"
            except ImageError as err:
                self._use(name.descriptor.digest, name.reference)
                text = str(err)
            else:
                text = self._missing(name.reference, images)
            if text is not None and self._store.database.name(name.reference) == name:
                mend = f"pull {name.reference} again, or load it"
                yield Problem("name", name.reference, text, (name.reference,), mend)

    def _missing(self, reference: str, images: list[Image]) -> str | None:
        found = None
        for image in images:
            for digest in (image.root.digest, image.descriptor.digest, image.id):
                self._use(digest, reference)
            for layer in image.stack:
                self._use(layer.descriptor.digest, reference)
                directory = unpacked_at(image.layers_root, layer)
                if directory is not None:
                    self._use(directory.name, reference)
                if not self._store.blobs.path(layer.descriptor.digest).exists():
                    found = f"blob {layer.descriptor.digest} is missing"
        return found

    def _use(self, what: str, name: str) -> None:
        users = self._users.setdefault(what, [])
        if name not in users:
            users.append(name)

    def _blob(self, digest: Digest) -> Iterator[Problem]:
        try:
            parse_digest(digest)
            if digest not in self._store.blobs:
                return
            path = self._store.blobs.path(digest)
            size = path.stat().st_size
            self._watch("blobs", 0, size)
            digester = Digester(algorithm_of(digest))
            with self._store.blobs.open(digest) as file:
                while data := file.read(_CHUNK):
                    digester.update(data)
                    self._watch("blobs", digester.size, size)
            digester.check(digest, None, f"blob {digest}")
        except Malformed:
            yield Problem("blob", digest, "is no digest", (), "remove the file")
        except (Corrupt, OSError) as err:
            names = tuple(self._users.get(digest, ()))
            text = reason(err) if isinstance(err, OSError) else str(err)
            yield Problem("blob", digest, text, names, _mend_blob(names))

    def _layer(self, name: str) -> Iterator[Problem]:
        directory = self._store.places.layers / name
        self._watch(f"layer {name[:19]}", 0, 0)
        self._store.use(Use(lease.LAYER, name))
        if not directory.exists():
            return
        try:
            fd = os.open(directory / TREE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with (directory / INDEX).open("rb") as index:
                    found = verify_layer(fd, *read_index(index))
                    differences = list(islice(found, _MAX_DIFFERENCES + 1))
            finally:
                os.close(fd)
        except (ImageError, OSError) as err:
            texts = [reason(err) if isinstance(err, OSError) else str(err)]
        else:
            texts = [
                f"/{os.fsdecode(difference.path)}: {difference.what}"
                for difference in differences[:_MAX_DIFFERENCES]
            ]
            if len(differences) > _MAX_DIFFERENCES:
                texts.append("and more")
        if texts:
            names = tuple(self._users.get(name, ()))
            mend = "`unionfuse image verify --repair` unpacks it again"
            yield Problem("layer", name, "; ".join(texts), names, mend)


def _mend_blob(names: tuple[str, ...]) -> str:
    if not names:
        return "no image has it: `unionfuse image gc` removes it"
    return f"`unionfuse image verify --repair` removes it; then pull {names[0]} again, or load it"


def _is_partial(store: Store, digest: Digest) -> bool:
    """Tell whether an image of an index was never pulled: its config is not here."""
    data = store.blobs.read(digest)
    document = parse_document(data, None, f"manifest {digest}")
    if not isinstance(document, Manifest):
        return False
    is_image = document.config.media_type in media_types.CONFIGS
    return not is_image or not store.blobs.path(document.config.digest).exists()


def take_out(store: Store, problem: Problem) -> None:
    """Take what is damaged out of its place, so that it can come again.

    Raises:
        StoreError: if it is in use by a mount, which would lose it.
    """
    places = store.places
    if problem.kind == "index":
        names.rewrite(store.database, places.index)
    elif problem.kind == "blob":
        store.blobs.path(Digest(problem.what)).unlink(missing_ok=True)
    elif problem.kind == "layer":
        dead = places.tmp / f"damaged-{problem.what}"
        with lease.locked(places.lock, fcntl.LOCK_EX):
            if problem.what in layers_in_use(store):
                raise StoreError(f"layer {problem.what} is mounted: unmount it, and repair again")
            (places.layers / problem.what).rename(dead)
            store.database.remove_layer(problem.what)
        lease.remove_if_dead(dead)
