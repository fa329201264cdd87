"""The connection: requests in, replies out, and polling only where it pays."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio

from unionfuse.fuse.kernel import wire
from unionfuse.fuse.kernel.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 10
WINDOW = 0.05  # seconds: long, for a busy machine


class Ends(NamedTuple):
    kernel: socket.socket
    daemon: Connection


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(TIMEOUT)
    daemon = Connection(theirs.detach(), WINDOW)
    with ours:
        yield Ends(ours, daemon)
    daemon.close()


def test_a_request_is_left_in_the_buffer(ends: Ends) -> None:
    ends.kernel.send(b"request")
    assert ends.daemon.receive(may_poll=False) == 7
    assert bytes(ends.daemon.request[:7]) == b"request"


def test_without_a_request_there_is_none(ends: Ends) -> None:
    assert ends.daemon.receive(may_poll=False) == 0
    assert ends.daemon.receive(may_poll=True) == 0  # nothing has come yet: it is not busy


def wait_for(ends: Ends, delay: float) -> None:
    """Wait for a request that comes after `delay` seconds, and take it."""

    async def send_later() -> None:
        await trio.sleep(delay)
        ends.kernel.send(b"x")

    async def run() -> None:
        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_later)
                await ends.daemon.wait()

    trio.run(run)
    assert ends.daemon.receive(may_poll=False) == 1


def test_requests_that_come_soon_make_it_poll(ends: Ends) -> None:
    wait_for(ends, 0)
    assert ends.daemon._is_busy


def test_requests_that_come_late_do_not(ends: Ends) -> None:
    wait_for(ends, 0)
    wait_for(ends, 3 * WINDOW)
    assert not ends.daemon._is_busy


def test_polling_finds_a_request_that_comes_meanwhile(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for(ends, 0)
    monkeypatch.setattr(os, "sched_yield", lambda: ends.kernel.send(b"soon"))
    assert ends.daemon.receive(may_poll=True) == 4


def test_polling_rests_when_others_want_the_core(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for(ends, 0)
    looks: list[float] = []

    def give_way() -> None:
        looks.append(0)
        time.sleep(0.001)  # another process had the core that long

    monkeypatch.setattr(os, "sched_yield", give_way)
    assert ends.daemon.receive(may_poll=True) == 0
    assert len(looks) == 1
    assert ends.daemon.receive(may_poll=True) == 0
    assert len(looks) == 1


def test_an_error_is_told_by_its_number(ends: Ends) -> None:
    ends.daemon.reply_error(5, errno.ENOENT)
    assert wire.OUT_HEADER.unpack(ends.kernel.recv(100)) == (16, -errno.ENOENT, 5)


def test_a_reply_has_its_size(ends: Ends) -> None:
    ends.daemon.reply(6, memoryview(b"abc"))
    assert ends.kernel.recv(100) == wire.OUT_HEADER.pack(19, 0, 6) + b"abc"


def test_attributes_are_taken_back_without_the_data(ends: Ends) -> None:
    ends.daemon.forget_attributes(42)
    message = ends.kernel.recv(100)
    assert wire.OUT_HEADER.unpack_from(message) == (len(message), wire.NOTIFY_INVAL_INODE, 0)
    assert wire.NOTIFY_INVAL_INODE_OUT.unpack_from(message, 16) == (42, -1, 0)


@pytest.mark.parametrize("may_poll", [False, True])
def test_requests_are_taken_until_another_descriptor_is_ready(ends: Ends, may_poll: bool) -> None:
    ready = os.eventfd(0)
    ends.kernel.send(b"one")
    taken = []
    for size in ends.daemon.requests_until(ready, may_poll=may_poll):
        if size:
            taken.append(bytes(ends.daemon.request[:size]))
        if len(taken) == 1:
            ends.kernel.send(b"another")
        elif len(taken) == 2:
            os.eventfd_write(ready, 1)
    os.close(ready)
    assert taken[:2] == [b"one", b"another"]


def test_another_descriptor_is_seen_however_fast_requests_come(ends: Ends) -> None:
    ready = os.eventfd(1)
    for count, _ in enumerate(ends.daemon.requests_until(ready)):
        ends.kernel.send(b"again")
        assert count < 1000
    os.close(ready)
