"""A tree to change, and the layer of what was changed in it.

    TMP/build-RANDOM/          locked as long as the build goes on: gc sweeps it when that is dead
        empty/                 what is below the layers of an image that has none
        N/upper work merged    of one step

Each step has an upper of its own on the layers so far. What it leaves there becomes a tar, the
same for the same changes, and that is unpacked as any layer is: what the next step sees is what
everybody sees who pulls the image.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from unionfuse.build.guard import Guard
from unionfuse.container import rootfs
from unionfuse.container.rootfs import Layers
from unionfuse.image.layers.compression import Compressor
from unionfuse.image.layers.form import LayerForm
from unionfuse.image.layers.pack import PackOptions, pack_upper
from unionfuse.image.making.config import source_date_epoch
from unionfuse.image.making.image import LAYER_TYPES, NewLayer, opened_stack
from unionfuse.image.manifest import Descriptor
from unionfuse.image.store import lease
from unionfuse.layer.override import Override, name_of
from unionfuse.syscalls import xattr

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unionfuse.image.layers.compression import Compression
    from unionfuse.image.store.store import Store

# The tar is made of it at once: what a power failure would spoil is made anew.
_VOLATILE = ("fsync=0",)
_OVERRIDE = ("xattr_permissions=2", "noacl")


@dataclass(frozen=True, slots=True)
class Change:
    """A tree that is being changed.

    Attributes:
        path: a directory for whatever belongs to it.
        merged: the tree.
        upper: what is changed in it.
        lowers: the layers of the image, the topmost first.
        store: the root of the store.
    """

    path: Path
    merged: Path
    upper: Path
    lowers: tuple[Path, ...]
    store: Path


class Workshop:
    """The place of one build; use it in a `with`."""

    def __init__(self, store: Store) -> None:
        """Take a directory in the store's tmp/."""
        self._store = store
        self._count = 0
        while True:
            self.path = Path(tempfile.mkdtemp(prefix="build-", dir=store.places.tmp))
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            if lease.is_at(self._fd, self.path):  # else another took it for dead
                break
            os.close(self._fd)
        self._empty = self.path / "empty"
        self._empty.mkdir(mode=0o755)
        fd = os.open(self._empty, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            override = LayerForm.probe(fd).override
            if override is not None:  # so that what is on it keeps owners there too
                xattr.set_(fd, override, Override(0, 0, 0o755, stat.S_IFDIR).packed())
        finally:
            os.close(fd)
        self._guard = Guard(self.path, self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            lease.remove_tree(self.path)
        finally:
            self._guard.dismiss()
            os.close(self._fd)

    def place(self) -> Path:
        """Return a new directory for a step."""
        self._count += 1
        path = self.path / str(self._count)
        path.mkdir(mode=0o700)
        return path

    @contextlib.contextmanager
    def changing(self, lowers: Sequence[Path], above: Sequence[Path] = ()) -> Iterator[Change]:
        """Yield a tree that can be changed, mounted for the time of a `with` block.

        Afterwards all that was written is in the upper, which stays until the build ends.

        Args:
            lowers: the layers of the image, the topmost first.
            above: layers over them that are no part of the image.
        """
        path = self.place()
        upper, work, merged = (path / name for name in ("upper", "work", "merged"))
        for directory in (upper, work, merged):
            directory.mkdir(mode=0o755)
        _as_below(upper, lowers[0] if lowers else self._empty)
        stack = [*above, *lowers] or [self._empty]
        daemon = rootfs.mount(Layers(tuple(stack), upper, work), merged, _words(stack))
        try:
            yield Change(path, merged, upper, tuple(lowers), self._store.places.root)
        finally:
            rootfs.unmount(merged, daemon)

    @contextlib.contextmanager
    def reading(self, lowers: Sequence[Path]) -> Iterator[Path]:
        """Yield the tree of an image, mounted for the time of a `with` block."""
        if not lowers:
            yield self._empty
            return
        merged = self.place() / "merged"
        merged.mkdir(mode=0o755)
        daemon = rootfs.mount(Layers(tuple(lowers)), merged, _words(lowers))
        try:
            yield merged
        finally:
            rootfs.unmount(merged, daemon)

    def layer_of(self, change: Change, compression: Compression) -> NewLayer | None:
        """Put what was changed into the store as a layer; None if nothing was.

        Raises:
            Refused: if no layer can say what was changed.
            StoreError: if there is no room.
        """
        with self._store.blobs.new() as writer:
            compressor = Compressor(writer.write, compression)
            with opened_stack(change.upper, change.lowers) as stack:
                packed = pack_upper(stack, compressor.write, PackOptions(source_date_epoch()))
            if not packed.entries:
                return None
            compressor.close()
            size = writer.size
            digest = writer.commit()
        return NewLayer(Descriptor(LAYER_TYPES[compression], digest, size), packed.diff_id)

    def clear(self, change: Change) -> None:
        """Remove what is left of a step."""
        lease.remove_tree(change.path)


def _words(stack: Sequence[Path]) -> tuple[str, ...]:
    has_override = any(name_of(os.fsencode(layer)) for layer in stack)
    return (*_VOLATILE, *(_OVERRIDE if has_override else ()))


def _as_below(upper: Path, below: Path) -> None:
    """Give the root of the upper the attributes of the one that it covers."""
    st = below.stat()
    os.chown(upper, st.st_uid, st.st_gid)
    upper.chmod(st.st_mode & 0o7777)
    os.utime(upper, ns=(st.st_atime_ns, st.st_mtime_ns))
