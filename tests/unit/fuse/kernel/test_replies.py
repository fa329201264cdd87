"""Whole replies say in one struct what the header's structs say one after the other."""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from unionfuse.fuse.kernel import replies, wire
from unionfuse.fuse.kernel.replies import Replies
from unionfuse.union.state import Attr, Entry

if TYPE_CHECKING:
    from pathlib import Path

UNIQUE = 77
TIMEOUT = 1.5


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    (tmp_path / "file").write_bytes(b"12345")
    os.utime(tmp_path / "file", ns=(-1, 2_000_000_003))
    st = (tmp_path / "file").stat()
    return Entry(SimpleNamespace(nodeid=9), Attr(1234, 3, st))


def header(reply: bytes) -> tuple[int, int, int]:
    size, error, unique = wire.OUT_HEADER.unpack_from(reply)
    assert size == len(reply)
    return size, error, unique


def attr_at(reply: bytes, offset: int) -> tuple[int, ...]:
    return wire.ATTR.unpack_from(reply, offset)


def test_an_entry_has_its_nodeid_timeouts_and_attributes(entry: Entry) -> None:
    reply = Replies(TIMEOUT).entry(UNIQUE, entry)
    assert header(reply)[1:] == (0, UNIQUE)
    assert wire.ENTRY_OUT.unpack_from(reply, 16) == (9, 0, 1, 1, 500_000_000, 500_000_000)
    ino, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, nlink, *_ = attr_at(reply, 56)
    assert (ino, size, nlink) == (1234, 5, 3)
    assert stat.S_ISREG(mode)
    assert (mtime, mtime_ns) == (2, 3)
    assert (atime, atime_ns) == (-1, 999_999_999)


def test_an_absent_name_is_kept_as_long(entry: Entry) -> None:
    reply = Replies(TIMEOUT).absent(UNIQUE)
    assert header(reply)[1:] == (0, UNIQUE)
    assert wire.ENTRY_OUT.unpack_from(reply, 16) == (0, 0, 1, 0, 500_000_000, 0)
    assert len(reply) == len(Replies(TIMEOUT).entry(UNIQUE, entry))


def test_attributes_that_are_not_to_be_kept_have_no_timeout(entry: Entry) -> None:
    kept = Replies(TIMEOUT).attributes(UNIQUE, entry.attr)
    not_kept = Replies(TIMEOUT).attributes(UNIQUE, entry.attr, keep=False)
    assert wire.ATTR_OUT.unpack_from(kept, 16) == (1, 500_000_000, 0)
    assert wire.ATTR_OUT.unpack_from(not_kept, 16) == (0, 0, 0)
    assert attr_at(kept, 32) == attr_at(not_kept, 32)


def test_a_created_file_has_how_it_is_open_behind_its_entry(entry: Entry) -> None:
    reply = Replies(TIMEOUT).created(UNIQUE, entry, wire.FOPEN_PASSTHROUGH, 5)
    assert header(reply)[1:] == (0, UNIQUE)
    offset = len(reply) - wire.OPEN_OUT.size
    assert wire.OPEN_OUT.unpack_from(reply, offset) == (0, wire.FOPEN_PASSTHROUGH, 5)


def test_a_device_number_is_in_the_kernels_32_bit_form() -> None:
    st = os.stat("/dev/null")
    fields = replies.attr_fields(Attr(1, 1, st))
    assert fields[13] == 1 << 8 | 3


def test_statx_tells_the_birth_only_where_it_is_known(entry: Entry) -> None:
    basic = Replies(TIMEOUT).statx(entry.attr, None, keep=True)
    whole = Replies(TIMEOUT).statx(entry.attr, (11, 22), keep=True)
    (mask,) = wire.STATX_ATTR.unpack_from(basic, wire.STATX_OUT.size)[:1]
    assert not mask & 0x800
    fields = wire.STATX_ATTR.unpack_from(whole, wire.STATX_OUT.size)
    assert fields[0] & 0x800
    assert fields[13:15] == (11, 22)


def test_the_longest_timeout_is_one_that_the_kernel_can_count(entry: Entry) -> None:
    reply = Replies(1e30).attributes(UNIQUE, entry.attr)
    seconds, _, _ = wire.ATTR_OUT.unpack_from(reply, 16)
    assert seconds == 1 << 40
