"""Images of a rootfs in a tar or a directory, and back."""

from __future__ import annotations

import bz2
import contextlib
import lzma
import os
from typing import TYPE_CHECKING, BinaryIO, cast

from unionfuse.image.digest import Digester
from unionfuse.image.errors import Malformed
from unionfuse.image.layers.compression import Compressor, decompressed, detect
from unionfuse.image.layers.pack import PackOptions, pack_merged, pack_tree
from unionfuse.image.making.config import source_date_epoch
from unionfuse.image.making.image import (
    LAYER_TYPES,
    NewLayer,
    Recipe,
    new_layer,
    opened_stack,
    put_on,
)
from unionfuse.image.manifest import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unionfuse.image.digest import Digest
    from unionfuse.image.layers.compression import Readable
    from unionfuse.image.store.image import Image
    from unionfuse.image.store.store import Store
    from unionfuse.image.watch import Watch

_CHUNK = 1 << 20
_XZ, _BZIP2 = b"\xfd7zXZ\0", b"BZh"
_END = bytes(1024)  # two empty blocks


def import_tar(
    store: Store,
    file: BinaryIO,
    recipe: Recipe,
) -> Image:
    """Make an image of a rootfs tar, plain or compressed by gzip, zstd, xz or bzip2.

    The tar itself becomes the layer. It stays compressed as it is by gzip or zstd; else it is
    compressed as the recipe says.

    Raises:
        Malformed, Refused: if it is no tar that a layer can be.
        StoreError: if there is no room.
    """
    head = file.read(8)
    source = _Joined(head, file)
    found = detect(head.ljust(4, b"\0"))
    with store.blobs.new() as writer:
        tar = _Tar()
        if found != "none":
            compression: str = found
            for data in decompressed(cast("BinaryIO", _Copied(source, writer.write))):
                tar.update(data)
                recipe.watch("reading", tar.size, 0)
        else:
            compression = recipe.compression
            compressor = Compressor(writer.write, recipe.compression)
            for data in _plain(head, source):
                tar.update(data)
                compressor.write(data)
                recipe.watch("reading", tar.size, 0)
            compressor.close()
        diff_id = tar.digest()
        size = writer.size
        digest = writer.commit()
    layer = NewLayer(Descriptor(LAYER_TYPES[compression], digest, size), diff_id)
    return put_on(store, None, [layer], recipe)


def import_directory(
    store: Store,
    directory: Path,
    recipe: Recipe,
) -> Image:
    """Make an image of all that is in a directory."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        layer, _ = new_layer(
            store,
            recipe,
            lambda write, options: pack_tree(fd, write, options),
            with_root=True,
        )
    finally:
        os.close(fd)
    return put_on(store, None, [layer], recipe)


def export(
    store: Store,
    image: Image,
    upper: Path | None,
    write: Callable[[bytes], object],
    watch: Watch,
) -> tuple[str, ...]:
    """Write all that an image shows, under an upper if there is one, as one tar.

    Returns:
        What was left out, a line each.
    """
    lowers = store.unpack(image, watch)
    done = 0

    def count(data: bytes) -> None:
        nonlocal done
        write(data)
        done += len(data)
        watch("writing", done, 0)

    with opened_stack(upper, lowers) as stack:
        options = PackOptions(source_date_epoch=source_date_epoch(), with_root=True)
        return pack_merged(stack, count, options).notes


def _plain(head: bytes, source: _Joined) -> Iterator[bytes]:
    """Yield a tar that is not compressed, or by what layers are not."""
    decompressor: lzma.LZMADecompressor | bz2.BZ2Decompressor | None = None
    if head.startswith(_XZ):
        decompressor = lzma.LZMADecompressor()
    elif head.startswith(_BZIP2):
        decompressor = bz2.BZ2Decompressor()
    if decompressor is None:
        while data := source.read(_CHUNK):
            yield data
        return
    with _damage_told():
        while not decompressor.eof:
            data = source.read(_CHUNK) if decompressor.needs_input else b""
            if decompressor.needs_input and not data:
                raise Malformed("the tar is cut")
            yield decompressor.decompress(data, _CHUNK)
    if decompressor.unused_data or source.read(1):
        raise Malformed("the tar has something after its end; decompress it first")


@contextlib.contextmanager
def _damage_told() -> Iterator[None]:
    try:
        yield
    except (lzma.LZMAError, OSError) as err:
        raise Malformed(f"the compressed tar is damaged: {err}") from None


class _Tar:
    """A tar that goes by: its digest, once it has come to its end."""

    def __init__(self) -> None:
        self._digester = Digester()
        self._last = b""

    @property
    def size(self) -> int:
        return self._digester.size

    def update(self, data: bytes) -> None:
        self._digester.update(data)
        self._last = (self._last + data[-len(_END) :])[-len(_END) :]

    def digest(self) -> Digest:
        if self._last != _END:  # whoever wrote it may have failed: nothing else tells
            raise Malformed("this is no tar, or it is cut: its end is missing")
        return self._digester.digest()


class _Joined:
    """A file of which the beginning was read already."""

    def __init__(self, head: bytes, file: Readable) -> None:
        self._head = head
        self._file = file

    def read(self, size: int, /) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        return self._file.read(size) or b""


class _Copied:
    """A file whose bytes are copied as they are read."""

    def __init__(self, file: Readable, write: Callable[[bytes], object]) -> None:
        self._file = file
        self._write = write

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size) or b""
        self._write(data)
        return data
