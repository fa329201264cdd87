"""The kernel session answers INIT by what both sides have."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from unionfuse.fuse.errors import MountError
from unionfuse.fuse.kernel import wire
from unionfuse.fuse.kernel.session import KernelSession
from unionfuse.fuse.options import MountPlan
from unionfuse.union.fs import UnionFs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEEDED = wire.NO_OPEN_SUPPORT | wire.NO_OPENDIR_SUPPORT | wire.BIG_WRITES
FLOCK_LOCKS = 1 << 10  # the kernel offers it, nobody wants it
TIMEOUT = 10
PLAN = MountPlan(lowers=(), upper=None, workdir=None, mountpoint=b"/nowhere")


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[UnionFs]:
    (tmp_path / "lower").mkdir()
    fs = UnionFs.from_paths([os.fsencode(tmp_path / "lower")])
    yield fs
    fs.close()


def converse(fs: UnionFs, minor: int, flags: int) -> tuple[int, tuple[int, ...], bool]:
    """Send INIT as a kernel does; return error and fields of the answer, and whether it serves."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ready: list[bool] = []
    body = wire.INIT_IN.pack(wire.MAJOR, minor, 1 << 17, flags, 0)
    head = wire.IN_HEADER.pack(wire.IN_HEADER.size + len(body), wire.INIT, 2, 0, 0, 0, 0, 0, 0)
    with ours:
        session = KernelSession(fs, theirs.detach(), PLAN, lambda: ready.append(True))
        ours.send(head + body)
        ended = os.eventfd(1)
        try:
            with contextlib.suppress(MountError):
                session.serve_until(ended)
                trio.run(serve_one, session, ours)
            answer = ours.recv(4096)
        finally:
            os.close(ended)
            session.close()
    _, error, _ = wire.OUT_HEADER.unpack_from(answer)
    fields = () if error else wire.INIT_OUT.unpack_from(answer, wire.OUT_HEADER.size)
    return -error, fields, bool(ready)


async def serve_one(session: KernelSession, kernel: socket.socket) -> None:
    """Let the session serve until it has answered once."""
    problem: MountError | None = None
    with trio.fail_after(TIMEOUT):
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.serve)
                await trio.lowlevel.wait_readable(kernel)
                session.stop()
        except* MountError as group:
            problem = MountError(str(group.exceptions))
    if problem is not None:
        raise problem


def test_only_what_the_kernel_offers_is_agreed_on(fs: UnionFs) -> None:
    offered = NEEDED | wire.POSIX_ACL | FLOCK_LOCKS
    error, fields, is_ready = converse(fs, 38, offered)
    assert (error, is_ready) == (0, True)
    assert fields[:2] == (wire.MAJOR, 38)
    assert fields[3] == NEEDED | wire.POSIX_ACL


def test_the_older_protocol_of_the_two_is_spoken(fs: UnionFs) -> None:
    assert converse(fs, wire.MINOR + 7, NEEDED)[1][1] == wire.MINOR


@pytest.mark.parametrize(
    ("minor", "flags"), [(wire.MIN_MINOR - 1, NEEDED), (38, NEEDED & ~wire.NO_OPENDIR_SUPPORT)]
)
def test_a_kernel_that_lacks_what_is_needed_is_refused(fs: UnionFs, minor: int, flags: int) -> None:
    error, _, is_ready = converse(fs, minor, flags)
    assert error == errno.EPROTO
    assert not is_ready


def alone(fs: UnionFs, opcodes: list[int], *, signalled: bool = False) -> bool:
    """Send requests to a session that serves alone, then end; return whether it is over."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    session = KernelSession(fs, theirs.detach(), PLAN, lambda: None)
    signal_fd = os.eventfd(int(signalled))
    try:
        for opcode in opcodes:
            head = wire.IN_HEADER.pack(wire.IN_HEADER.size, opcode, 2, 1, 0, 0, 0, 0, 0)
            ours.send(head)
        return session.serve_alone(signal_fd)
    finally:
        ours.close()
        os.close(signal_fd)
        session.close()


def test_a_session_alone_goes_on_until_much_is_asked(
    fs: UnionFs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unionfuse.fuse.kernel.session._ALONE", 3)
    assert not alone(fs, [wire.FLUSH] * 3)


def test_a_session_alone_leaves_off_at_a_signal(fs: UnionFs) -> None:
    assert not alone(fs, [], signalled=True)


def test_a_session_alone_leaves_off_when_a_request_has_to_wait(
    fs: UnionFs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(self: KernelSession, size: int) -> None:
        self._context.pending.start((0,) * 9, "test", lambda: None)  # type: ignore[arg-type,return-value]

    monkeypatch.setattr(KernelSession, "_answer", waits)
    assert not alone(fs, [wire.FLUSH])
