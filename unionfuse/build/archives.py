"""Tars that ADD unpacks: plain, or compressed by gzip, bzip2, xz or zstd."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from typing import BinaryIO, cast

import zstandard

_BLOCK = 512
_MAGIC, _AT = b"ustar", 257


def as_tar(fd: int) -> BinaryIO | None:
    """Return what is in a file as a tar, uncompressed; None if it is none.

    A name says nothing: the content does.
    """
    with open(fd, "rb", closefd=False) as file:
        stream = _uncompressed(file.read(6), fd)
        try:
            head = stream.read(_BLOCK)
        except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError):
            return None
    if not _is_header(head):
        return None
    return _uncompressed(_start(fd), fd)


def _start(fd: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    return os.pread(fd, 6, 0)


def _uncompressed(head: bytes, fd: int) -> BinaryIO:
    os.lseek(fd, 0, os.SEEK_SET)
    file = open(fd, "rb", closefd=False)  # noqa: SIM115 - it is what is returned
    if head.startswith(b"\x1f\x8b"):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if head.startswith(b"BZh"):
        return cast("BinaryIO", bz2.BZ2File(file))
    if head.startswith(b"\xfd7zXZ\0"):
        return cast("BinaryIO", lzma.LZMAFile(file))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", reader)))
    return file


def _is_header(block: bytes) -> bool:
    if len(block) < _BLOCK:
        return False
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
