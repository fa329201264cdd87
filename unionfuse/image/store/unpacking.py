"""Unpack a layer into its directory in layers/.

It is applied in a directory of tmp/, which is locked: others who want the same layer wait for it.
It appears in layers/ by a rename, when all of it is on disk and its diff_id is verified.

A tar need not have an entry for a directory that the layers below have, and most have none for
the root. Such a directory has the attributes of that below, so the layer is kept for the stack
that it is in: by its chain_id, as docker and containerd keep every layer. One that has all its
directories is the same in every stack, and is kept by its diff_id.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from unionfuse.image import media_types
from unionfuse.image.errors import Refused
from unionfuse.image.layers.apply import LayerBlob, apply_layer
from unionfuse.image.layers.form import LayerForm
from unionfuse.image.layers.implied import complete_implied
from unionfuse.image.layers.index import IndexWriter
from unionfuse.image.store import lease
from unionfuse.image.store.blobs import as_store_error, sync_directory
from unionfuse.image.store.database import LayerFacts
from unionfuse.image.store.image import directory_name, unpacked_at
from unionfuse.image.store.lease import Use
from unionfuse.syscalls.syncfs import syncfs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unionfuse.image.layers.apply import Applied
    from unionfuse.image.store.database import Database
    from unionfuse.image.store.image import Layer
    from unionfuse.image.store.store import Store
    from unionfuse.image.watch import Watch

TREE = "fs"
INDEX = "index"
FACTS = "facts.json"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
    _check_kind(layer)
    for name in _names(layer):
        store.use(Use(lease.LAYER, name))
    found = unpacked_at(store.places.layers, layer)
    if found is not None:
        return Unpacked(found, False)
    try:
        with _scratch(store.places.tmp / f"unpack-{_names(layer)[1]}") as scratch:
            found = unpacked_at(store.places.layers, layer)
            if found is not None:  # another process was first
                return Unpacked(found, False)
            applied = _apply(store, layer, scratch, watch)
            if applied.implied and below is None:
                return None
            if applied.implied:
                _complete(scratch, applied, below or [])
            directory = store.places.layers / _names(layer)[bool(applied.implied)]
            facts = LayerFacts(
                directory.name,
                layer.diff_id,
                applied.entries,
                applied.tar_bytes,
                applied.file_bytes,
            )
            (scratch / FACTS).write_bytes(msgspec.json.encode(facts))
            _publish(scratch, directory)
    except OSError as err:
        raise as_store_error(err) from None
    store.database.set_layer(facts)
    return Unpacked(directory, True)


def find_facts(database: Database, layers: Path) -> None:
    """Read what is known of the layers out of their directories, into a new database."""
    for directory in layers.iterdir():
        with contextlib.suppress(OSError, msgspec.DecodeError):  # `verify` tells of it
            data = (directory / FACTS).read_bytes()
            database.set_layer(msgspec.json.decode(data, type=LayerFacts))


def _names(layer: Layer) -> tuple[str, str]:
    """Return what the directory is called if it is the same in every stack, and if it is not."""
    return directory_name(layer.diff_id), directory_name(layer.chain_id, is_chain=True)


def _check_kind(layer: Layer) -> None:
    media_type = layer.descriptor.media_type
    if media_types.is_foreign(media_type):
        raise Refused(f"layer {layer.descriptor.digest} is foreign ({media_type}): not to be kept")
    if media_type not in media_types.LAYER_COMPRESSION:
        raise Refused(f"layer {layer.descriptor.digest} is of an unknown type: {media_type}")


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """Yield an empty directory of tmp/ that is locked, and gone afterwards if it is still there."""
    while True:
        path.mkdir(mode=0o700, exist_ok=True)
        try:
            fd = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if lease.is_at(fd, path):
            break
        os.close(fd)  # it has become a layer meanwhile, or was swept away
    try:
        for name in os.listdir(path):  # of one who was killed
            left = path / name
            lease.remove_tree(left) if left.is_dir() else left.unlink()
        yield path
    finally:
        try:
            if lease.is_at(fd, path):
                lease.remove_tree(path)
        finally:
            os.close(fd)


def _apply(store: Store, layer: Layer, scratch: Path, watch: Watch) -> Applied:
    """Fill `fs` and `index`."""
    tree = scratch / TREE
    tree.mkdir(mode=0o755)
    descriptor = layer.descriptor
    index = IndexWriter()
    what = f"unpacking {descriptor.digest[:19]}"
    fd = os.open(tree, _DIRECTORY)
    try:
        form = LayerForm.probe(fd)
        with store.blobs.open(descriptor.digest) as file:
            blob = LayerBlob(
                file, digest=descriptor.digest, size=descriptor.size, diff_id=layer.diff_id
            )
            applied = apply_layer(
                blob,
                fd,
                form,
                store.limits,
                index,
                lambda done: watch(what, done, descriptor.size),
            )
    finally:
        os.close(fd)
    with (scratch / INDEX).open("wb") as out:
        index.write(out.write, form)
    return applied


def _complete(scratch: Path, applied: Applied, below: list[Path]) -> None:
    """Give the directories without an entry the attributes that those below have."""
    with contextlib.ExitStack() as opened:
        fds = []
        for tree in (scratch / TREE, *(directory / TREE for directory in reversed(below))):
            fds.append(os.open(tree, _DIRECTORY))
            opened.callback(os.close, fds[-1])
        complete_implied(fds[0], applied.implied, fds[1:])


def _publish(scratch: Path, directory: Path) -> None:
    fd = os.open(scratch, _DIRECTORY)
    try:
        syncfs(fd)  # before the name: a crash would leave the name of a layer that is not whole
        os.fchmod(fd, 0o755)
        scratch.rename(directory)
    finally:
        os.close(fd)
    sync_directory(directory.parent)
