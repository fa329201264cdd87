"""Requests that wait: answered later, once, and let go when their caller is interrupted."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import trio
import trio.testing

from unionfuse.fuse.kernel import context
from unionfuse.fuse.kernel.context import Head, Pending
from unionfuse.union.fs import CopyUpNeeded
from unionfuse.union.node import Node

if TYPE_CHECKING:
    import pytest

TIMEOUT = 10


class Connection:
    """Keeps what was answered: (unique, reply or errno)."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes | int]] = []

    def send(self, message: bytes) -> None:
        self.answers.append((0, message))

    def reply_error(self, unique: int, code: int) -> None:
        self.answers.append((unique, code))


class CopyUps:
    """Makes each copy-up when `done` is set."""

    def __init__(self) -> None:
        self.done = trio.Event()

    async def retry(self, method):
        while True:
            try:
                return method()
            except CopyUpNeeded:
                await self.done.wait()


def head(unique: int) -> Head:
    return (40, 3, unique, 1, 0, 0, 0, 0, 0)


def run(scenario) -> None:
    async def main() -> None:
        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                await scenario(nursery)
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_what_came_before_the_nursery_is_answered_then() -> None:
    async def scenario(nursery: trio.Nursery) -> None:
        connection = Connection()
        pending = Pending(connection, CopyUps())

        async def work() -> bytes:
            return b"reply"

        pending.start(head(5), "read", work)
        assert connection.answers == []
        pending.begin(nursery)
        await trio.testing.wait_all_tasks_blocked()
        assert connection.answers == [(0, b"reply")]

    run(scenario)


def test_an_error_of_a_layer_is_the_answer() -> None:
    async def scenario(nursery: trio.Nursery) -> None:
        connection = Connection()
        pending = Pending(connection, CopyUps())
        pending.begin(nursery)

        async def work() -> bytes:
            raise OSError(errno.ENOSPC, "full")

        pending.start(head(5), "fsync", work)
        await trio.testing.wait_all_tasks_blocked()
        assert connection.answers == [(5, errno.ENOSPC)]

    run(scenario)


def test_anything_else_is_logged_and_eio(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(nursery: trio.Nursery) -> None:
        connection = Connection()
        pending = Pending(connection, CopyUps())
        pending.begin(nursery)

        async def work() -> bytes:
            raise RuntimeError("unforeseen")

        pending.start(head(5), "fsync", work)
        await trio.testing.wait_all_tasks_blocked()
        assert connection.answers == [(5, errno.EIO)]

    run(scenario)
    assert "fsync of node 1 failed" in caplog.text


def test_a_killed_caller_is_let_go_and_nothing_is_done_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context, "is_dying", lambda pid: True)

    async def scenario(nursery: trio.Nursery) -> None:
        connection, copy_ups = Connection(), CopyUps()
        pending = Pending(connection, copy_ups)
        pending.begin(nursery)
        calls = []

        def handler(head: Head, request: bytes) -> bytes:
            calls.append(request)
            if not copy_ups.done.is_set():
                raise CopyUpNeeded(Node(1, 0o100000, None, b""))
            return b"done"

        pending.after_copy_up(head(5), "write", handler, memoryview(b"data"))
        await trio.testing.wait_all_tasks_blocked()
        pending.interrupt(5)
        await trio.testing.wait_all_tasks_blocked()
        assert connection.answers == [(5, errno.EINTR)]
        copy_ups.done.set()
        await trio.testing.wait_all_tasks_blocked()
        assert connection.answers == [(5, errno.EINTR)]
        assert calls == [b"data"]

    run(scenario)


def test_a_caller_that_handles_a_signal_waits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(context, "is_dying", lambda pid: len(asked) > 1 or asked.append(pid))

    async def scenario(nursery: trio.Nursery) -> None:
        connection, copy_ups = Connection(), CopyUps()
        pending = Pending(connection, copy_ups)
        pending.begin(nursery)

        async def work() -> bytes:
            await copy_ups.done.wait()
            return b"reply"

        pending.start(head(5), "fsync", work)
        pending.interrupt(5)
        await trio.testing.wait_all_tasks_blocked()
        assert connection.answers == []
        copy_ups.done.set()
        await trio.testing.wait_all_tasks_blocked()
        assert connection.answers == [(0, b"reply")]

    run(scenario)


def test_an_interrupt_of_what_does_not_wait_is_nothing() -> None:
    connection = Connection()
    Pending(connection, CopyUps()).interrupt(7)
    assert connection.answers == []
