"""What the handlers of one connection share."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unionfuse.fuse.caller import is_dying
from unionfuse.fuse.kernel import wire
from unionfuse.fuse.kernel.workers import Workers
from unionfuse.record import field, mutable_record

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import trio

    from unionfuse.fuse.copying import CopyUps
    from unionfuse.fuse.kernel.backings import Backings
    from unionfuse.fuse.kernel.connection import Connection
    from unionfuse.fuse.kernel.init import Agreement
    from unionfuse.fuse.kernel.replies import Replies
    from unionfuse.fuse.kernel.setid import SetidWatch
    from unionfuse.fuse.syncing import Syncs
    from unionfuse.union.fs import UnionFs

log = logging.getLogger(__name__)

# The header of a request: len opcode unique nodeid uid gid pid total_extlen padding.
Head = tuple[int, int, int, int, int, int, int, int, int]
# Takes a request, header included, and returns the whole reply; None if that comes later or never.
# `bytes` for all but WRITE, whose memoryview is good until the handler returns.
Handler = Callable[[Head, Any], bytes | None]

BODY = wire.IN_HEADER.size
_WATCH_SECONDS = 0.1


@mutable_record
class Context:
    """One connection and what it serves.

    Attributes:
        agreement: what INIT agreed on; nothing is asked before it.
        listing_ends: by nodeid of a directory, the end of its listing at the last rewind.
    """

    fs: UnionFs
    connection: Connection
    replies: Replies
    backings: Backings
    pending: Pending
    setid: SetidWatch
    agreement: Agreement
    syncs: Syncs
    listing_ends: dict[int, int] = field(default_factory=dict)


class Interrupted(OSError):
    """The caller has stopped waiting."""


class Pending:
    """Requests that are answered later, because they wait for a copy-up or the disk.

    A caller that is killed meanwhile is let go; what it waited for goes on. One that handles a
    signal waits on: no disk filesystem answers chmod with EINTR, and few programs try again.
    """

    def __init__(self, connection: Connection, copy_ups: CopyUps) -> None:
        """Answer over `connection`."""
        self._connection = connection
        self._copy_ups = copy_ups
        self._workers = Workers()
        self._callers: dict[int, int] = {}  # by unique: the thread that waits
        self._nursery: trio.Nursery | None = None
        self._early: list[tuple[Head, str, Callable[[], Awaitable[bytes]]]] = []

    @property
    def is_waiting(self) -> bool:
        """Whether something has come before `begin`, which it waits for."""
        return bool(self._early)

    def begin(self, nursery: trio.Nursery) -> None:
        """Run what waits in `nursery`: what has come already, and what will come."""
        self._nursery = nursery
        for arguments in self._early:
            nursery.start_soon(self._run, *arguments)
        self._early.clear()

    def start(self, head: Head, kind: str, work: Callable[[], Awaitable[bytes]]) -> None:
        """Answer the request with the whole reply that `work` returns, or the error it raises."""
        self._callers[head[2]] = head[6]
        if self._nursery is None:
            self._early.append((head, kind, work))
        else:
            self._nursery.start_soon(self._run, head, kind, work)

    def in_thread(self, head: Head, kind: str, job: Callable[[], bytes | memoryview]) -> None:
        """Answer the request with the body that `job` returns from a thread, or its error."""

        def run() -> None:
            try:
                self._connection.reply(head[2], job())
            except Exception as err:
                self.fail(head, kind, err)

        self._workers.start(run)

    def close(self) -> None:
        """Wait for the threads to answer."""
        self._workers.close()

    def after_copy_up(
        self,
        head: Head,
        kind: str,
        handler: Handler,
        request: bytes | memoryview,
    ) -> None:
        """Answer the request by `handler`, again and again until no copy-up is in its way."""
        kept = bytes(request)  # the buffer is used for other requests meanwhile

        def attempt() -> bytes | None:
            if head[2] not in self._callers:
                raise Interrupted(errno.EINTR, "")
            return handler(head, kept)

        async def work() -> bytes:
            return await self._copy_ups.retry(attempt) or b""

        self.start(head, kind, work)

    def interrupt(self, unique: int) -> None:
        """Let the caller of a request go, if it waits here and a signal has killed it."""
        if unique in self._callers and self._nursery is not None:
            self._nursery.start_soon(self._watch, unique)

    async def _watch(self, unique: int) -> None:
        # The kernel tells of the first signal only, which need not be the one that kills.
        import trio

        while unique in self._callers:
            if is_dying(self._callers[unique]):
                del self._callers[unique]
                self._connection.reply_error(unique, errno.EINTR)
                return
            await trio.sleep(_WATCH_SECONDS)

    async def _run(self, head: Head, kind: str, work: Callable[[], Awaitable[bytes]]) -> None:
        unique = head[2]
        try:
            reply = await work()
        except Exception as err:
            if self._callers.pop(unique, None) is not None:
                self.fail(head, kind, err)
            return
        if self._callers.pop(unique, None) is not None and reply:
            self._connection.send(reply)

    def fail(self, head: Head, kind: str, err: Exception) -> None:
        """Answer a request with an error; one that is no answer of a layer is logged."""
        code = err.errno if isinstance(err, OSError) else None
        if code is None:
            log.error("%s of node %d failed", kind, head[3], exc_info=err)
        self._connection.reply_error(head[2], code or errno.EIO)
