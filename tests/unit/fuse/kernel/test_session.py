"""The kernel session answers INIT by what both sides have."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from unionfuse.fuse import wire
from unionfuse.fuse.kernel_session import KernelSession
from unionfuse.fuse.options import MountOptions
from unionfuse.union.fs import UnionFs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEEDED = wire.NO_OPEN_SUPPORT | wire.NO_OPENDIR_SUPPORT | wire.BIG_WRITES
TIMEOUT = 10


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[UnionFs]:
    (tmp_path / "lower").mkdir()
    fs = UnionFs.from_paths([os.fsencode(tmp_path / "lower")])
    yield fs
    fs.close()


def negotiate(fs: UnionFs, minor: int, flags: int) -> tuple[int, tuple[int, ...], bool]:
    """Send INIT as a kernel does; return error and fields of the answer, and whether it serves."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ready: list[bool] = []
    body = wire.INIT_IN.pack(wire.MAJOR, minor, 1 << 17, flags, 0)
    head = wire.IN_HEADER.pack(wire.IN_HEADER.size + len(body), wire.INIT, 2, 0, 0, 0, 0, 0, 0)
    with ours:
        session = KernelSession(fs, theirs.detach(), MountOptions(), lambda: ready.append(True))
        ours.send(head + body)

        async def converse() -> bytes:
            with trio.fail_after(TIMEOUT):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(session.serve)
                    await trio.lowlevel.wait_readable(ours)
                    answer = ours.recv(4096)
                    session.stop()
            return answer

        answer = trio.run(converse)
        session.close()
    _, error, _ = wire.OUT_HEADER.unpack_from(answer)
    fields = () if error else wire.INIT_OUT.unpack_from(answer, wire.OUT_HEADER.size)
    return -error, fields, bool(ready)


def test_only_what_the_kernel_offers_is_agreed_on(fs: UnionFs) -> None:
    offered = NEEDED | wire.POSIX_ACL | wire.WRITEBACK_CACHE
    error, fields, is_ready = negotiate(fs, 38, offered)
    assert (error, is_ready) == (0, True)
    assert fields[:2] == (wire.MAJOR, 38)
    assert fields[3] == NEEDED | wire.POSIX_ACL


def test_the_older_protocol_of_the_two_is_spoken(fs: UnionFs) -> None:
    assert negotiate(fs, wire.MINOR + 7, NEEDED)[1][1] == wire.MINOR


@pytest.mark.parametrize(
    ("minor", "flags"), [(wire.MIN_MINOR - 1, NEEDED), (38, NEEDED & ~wire.NO_OPENDIR_SUPPORT)]
)
def test_a_kernel_that_lacks_what_is_needed_is_refused(fs: UnionFs, minor: int, flags: int) -> None:
    error, _, is_ready = negotiate(fs, minor, flags)
    assert error == errno.EPROTO
    assert not is_ready
