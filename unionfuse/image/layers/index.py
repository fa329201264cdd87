"""What is in the directory of a layer, with a fingerprint of every file: made while it is applied.

    zstd( msgpack(head) msgpack(IndexEntry) ... )      entries by their paths, in order

It names nothing outside of this machine: what does has a sha256.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, BinaryIO

import msgspec
import xxhash
import zstandard

from unionfuse.image.errors import Corrupt, ImageError
from unionfuse.image.layers.compression import decompressed
from unionfuse.image.layers.reader import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from unionfuse.image.layers.form import LayerForm

VERSION = 1
_MAX_ENTRY = 1 << 20
_GATHER = 1 << 18

KINDS = {
    "f": "file",
    "d": "directory",
    "l": "symlink",
    "h": "hard link",
    "c": "character device",
    "b": "block device",
    "p": "fifo",
    "w": "whiteout",
}

KIND_OF = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFIFO: "p",
}


class IndexHead(msgspec.Struct, frozen=True, array_like=True):
    """How the layer is kept; see `LayerForm`."""

    version: int
    owners: bool
    devices: bool


class IndexEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One name of a layer.

    Attributes:
        path: from the root of the layer; empty for that itself.
        kind: one of `KINDS`; of a hard link nothing but `target` is told.
        mode, uid, gid, mtime_ns: as in the tar.
        size: bytes of a file.
        content: xxh3-64 of a file's bytes.
        target: of a symlink; of a hard link the path of the other.
        rdev: of a device: major, minor.
        xattrs: xxh3-64 of the attributes, see `xattrs_hash`.
        is_opaque: of a directory.
        is_implied: the tar has no entry for this directory: its attributes are from below.
    """

    path: bytes
    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    content: int = 0
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: int = 0
    is_opaque: bool = False
    is_implied: bool = False


def xattrs_hash(xattrs: dict[bytes, bytes]) -> int:
    """Return one number for a set of attributes, 0 for none."""
    if not xattrs:
        return 0
    state = xxhash.xxh3_64()
    for name in sorted(xattrs):
        for text in (name, xattrs[name]):
            state.update(b"%d:" % len(text))
            state.update(text)
    return state.intdigest()


class IndexWriter:
    """The index of one layer while its entries come, the later ones in place of the earlier.

    Holds about 300 bytes an entry.
    """

    def __init__(self) -> None:
        self._packed: dict[bytes, bytes] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(IndexEntry).decode

    def add(self, entry: IndexEntry) -> None:
        """Take an entry."""
        self._packed[entry.path] = self._encode(entry)

    def remove(self, path: bytes) -> None:
        """Forget an entry, if it is there."""
        self._packed.pop(path, None)

    def mark_opaque(self, path: bytes) -> None:
        """Note that a directory that was added is opaque."""
        entry = self._decode(self._packed[path])
        self.add(msgspec.structs.replace(entry, is_opaque=True))

    def entries(self) -> Iterator[IndexEntry]:
        """Yield what there is, in order."""
        for path in sorted(self._packed):
            yield self._decode(self._packed[path])

    def write(self, write: Callable[[bytes], object], form: LayerForm) -> None:
        """Give the bytes of the index, of a layer that is kept as `form`, to `write`."""
        head = IndexHead(VERSION, form.owners, form.devices)
        compressor = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
        for data in _gathered(self._pieces(head)):
            out = compressor.compress(data)
            if out:
                write(out)
        write(compressor.flush())

    def _pieces(self, head: IndexHead) -> Iterator[bytes]:
        for data in (self._encode(head), *(self._packed[path] for path in sorted(self._packed))):
            yield len(data).to_bytes(4, "little")
            yield data


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _GATHER:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def read_index(file: BinaryIO) -> tuple[IndexHead, Iterator[IndexEntry]]:
    """Return what an index begins with, and its entries as they are read.

    Raises:
        Corrupt: if it is damaged; the iterator raises it too.
    """
    entries = _pieces_of(file)
    try:
        head = msgspec.msgpack.decode(next(entries, b""), type=IndexHead)
    except msgspec.DecodeError:
        raise Corrupt("the index of a layer is damaged") from None
    if head.version != VERSION:
        raise Corrupt(f"the index of a layer is of version {head.version}, not {VERSION}")
    return head, _decoded(entries)


def _decoded(pieces: Iterator[bytes]) -> Iterator[IndexEntry]:
    decode = msgspec.msgpack.Decoder(IndexEntry).decode
    try:
        for piece in pieces:
            yield decode(piece)
    except msgspec.DecodeError:
        raise Corrupt("the index of a layer is damaged") from None


def _pieces_of(file: BinaryIO) -> Iterator[bytes]:
    stream = Stream(decompressed(file, "zstd"))
    try:
        while head := stream.take(4):
            size = int.from_bytes(head, "little")
            piece = stream.take(size) if len(head) == 4 and size <= _MAX_ENTRY else b""
            if len(piece) < size or not piece:
                raise Corrupt("the index of a layer is damaged")
            yield piece
    except Corrupt:
        raise
    except ImageError as err:
        raise Corrupt(f"the index of a layer is damaged: {err}") from None
