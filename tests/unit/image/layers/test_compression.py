from __future__ import annotations

import gzip
import io
import struct
import zlib

import pytest
import zstandard

from unionfuse.image.digest import Digester, digest_of
from unionfuse.image.errors import Malformed
from unionfuse.image.layers import compression
from unionfuse.image.layers.compression import Compressor, decompressed, detect

DATA = b"".join(b"line %d\n" % number for number in range(100_000))
KINDS = ["none", "gzip", "zstd"]
SKIPPABLE = b"\x50\x2a\x4d\x18" + struct.pack("<I", 7) + b"skipped"


def pack(data, kind):
    out = io.BytesIO()
    compressor = Compressor(out.write, kind)
    for start in range(0, len(data), 70_000):
        compressor.write(memoryview(data)[start : start + 70_000])
    compressor.close()
    return out.getvalue()


def unpack(data, kind=None):
    return b"".join(decompressed(io.BytesIO(data), kind))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_compressed_comes_back(kind):
    packed = pack(DATA, kind)
    passed = Digester()
    assert b"".join(decompressed(io.BytesIO(packed), kind, passed)) == DATA
    assert passed.digest() == digest_of(packed)
    assert detect(packed[:4]) == kind
    assert unpack(packed) == DATA


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_data_gives_the_same_bytes(kind):
    assert pack(DATA, kind) == pack(DATA, kind)


def test_a_gzip_stream_has_neither_name_nor_time():
    assert pack(DATA, "gzip")[:8] == b"\x1f\x8b\x08\0\0\0\0\0"


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_streams_one_after_the_other_are_one(kind):
    assert unpack(pack(DATA, kind) + pack(b"", kind) + pack(b"more", kind)) == DATA + b"more"


def test_zlib_takes_the_place_of_isal(monkeypatch):
    by_isal = pack(DATA, "gzip")
    monkeypatch.setattr(compression, "_gzip", zlib)
    monkeypatch.setattr(compression, "GZIP_LEVEL", 6)
    by_zlib = pack(DATA, "gzip")
    assert unpack(by_isal + by_zlib) == DATA + DATA
    assert by_zlib[:8] == by_isal[:8]
    with pytest.raises(Malformed, match="cut"):
        unpack(by_zlib[:-1])
    with pytest.raises(Malformed, match="damaged"):
        unpack(by_zlib[:-1] + b"\xff")


def test_many_small_members_are_read():
    assert unpack(b"".join(gzip.compress(b"%d " % n) for n in range(500))) == b"".join(
        b"%d " % n for n in range(500)
    )


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("cut", [1, 5, 100])
def test_a_cut_stream_is_an_error(kind, cut):
    with pytest.raises(Malformed, match=r"cut|damaged"):
        unpack(pack(DATA, kind)[:-cut])


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("rest", [b"x", b"garbage after the end", bytes(512)])
def test_something_else_after_the_end_is_an_error(kind, rest):
    with pytest.raises(Malformed):
        unpack(pack(DATA, kind) + rest)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_an_empty_stream_is_an_error_where_one_is_told(kind):
    with pytest.raises(Malformed, match="cut"):
        unpack(b"", kind)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_damage_is_an_error(kind):
    packed = bytearray(pack(DATA, kind))
    packed[len(packed) // 2] ^= 0xFF
    packed[-1] ^= 0xFF
    with pytest.raises(Malformed):
        unpack(bytes(packed))


def test_skippable_frames_of_zstd_are_skipped():
    frame = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(DATA)
    assert unpack(SKIPPABLE + frame + SKIPPABLE + pack(b"more", "zstd") + SKIPPABLE) == (
        DATA + b"more"
    )
    with pytest.raises(Malformed, match="cut"):
        unpack(frame + SKIPPABLE[:-1])


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_bomb_comes_in_small_pieces(kind):
    packed = pack(bytes(64 << 20), kind)
    sizes = [len(piece) for piece in decompressed(io.BytesIO(packed))]
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= 1 << 20
