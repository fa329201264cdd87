from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from unionfuse.build.archives import as_tar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("name")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return out.getvalue()


def opened(path: Path, data: bytes) -> list[str] | None:
    """Return the names in what is taken for a tar; None if it is none."""
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        stream = as_tar(fd)
        if stream is None:
            return None
        with stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            return archive.getnames()
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress],
    ids=["none", "gzip", "bzip2", "xz", "zstd"],
)
def test_a_tar_is_known_by_its_content(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    assert opened(tmp_path / "no-name-that-tells", compress(tar())) == ["name"]


@pytest.mark.parametrize(
    "data",
    [b"", b"text", b"x" * 2000, gzip.compress(b"text" * 500), b"\x1f\x8bbroken", b"BZhbroken"],
)
def test_what_is_none_is_left_as_it_is(tmp_path: Path, data: bytes) -> None:
    assert opened(tmp_path / "file.tar.gz", data) is None
