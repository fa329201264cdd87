"""The kernel session: reads requests, answers them in line, waits only when there are none.

What pyfuse3 can not ask for, in INIT and in replies, is why it exists: opens and closes that
make no request, listings, symlinks and absent names that the kernel keeps, writes that it
gathers or that go past the daemon, plain READDIR, LSEEK, FALLOCATE, COPY_FILE_RANGE, TMPFILE,
STATX, IOCTL.

Only what would wait (copy-ups, reads from the disk, fsync) becomes a task.
"""

from __future__ import annotations

import errno
import gc
import logging
from typing import TYPE_CHECKING

from unionfuse.fuse.copying import CopyUps
from unionfuse.fuse.errors import MountError
from unionfuse.fuse.kernel import wire
from unionfuse.fuse.kernel.attributes import AttributeRequests
from unionfuse.fuse.kernel.backings import Backings
from unionfuse.fuse.kernel.connection import Connection, ConnectionEnded
from unionfuse.fuse.kernel.context import BODY, Context, Handler, Head, Pending
from unionfuse.fuse.kernel.directories import DirectoryRequests
from unionfuse.fuse.kernel.files import FileRequests
from unionfuse.fuse.kernel.init import (
    CACHED,
    Agreement,
    TooOldError,
    negotiate,
)
from unionfuse.fuse.kernel.names import NameRequests
from unionfuse.fuse.kernel.readahead import raise_readahead
from unionfuse.fuse.kernel.replies import Replies, done
from unionfuse.fuse.kernel.setid import SetidWatch
from unionfuse.fuse.syncing import Syncs
from unionfuse.syscalls import memory
from unionfuse.union.fs import CopyUpNeeded, UnionFs

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from unionfuse.fuse.options import MountPlan

log = logging.getLogger(__name__)

_OPCODES = 128
# Refused once, with ENOSYS: the kernel then opens and closes without asking.
_UNANSWERED = {wire.OPENDIR: "opendir", wire.FLUSH: "flush"}
# So are these with `noxattrs`.
_ON_XATTRS = (wire.GETXATTR, wire.LISTXATTR, wire.SETXATTR, wire.REMOVEXATTR)
_MANY_NODES = 10_000
_ALONE = 1000  # requests that are answered without trio
_NOTHING_AGREED = Agreement(0, 0, CACHED)


class KernelSession:
    """One mount served over its own /dev/fuse descriptor.

    Attributes:
        name: as `--session` has it.
        requests: how many of each opcode have come.
    """

    name = "kernel"

    def __init__(
        self, fs: UnionFs, fuse_fd: int, plan: MountPlan, on_init: Callable[[], None]
    ) -> None:
        """Serve `fs` over the mounted connection `fuse_fd`, which becomes the session's.

        `plan` is decided, by `choose_io`.
        """
        self.requests = [0] * _OPCODES
        self._fs = fs
        self._on_init = on_init
        self._wanted_io = plan.io
        self._mountpoint = plan.mountpoint
        self._options = plan.options
        self._connection = connection = Connection(fuse_fd, plan.poll_us / 1e6)
        self._context = context = Context(
            fs=fs,
            connection=connection,
            replies=Replies(plan.options.timeout),
            backings=Backings(fuse_fd),
            pending=Pending(connection, CopyUps(fs)),
            setid=SetidWatch(fs),
            agreement=_NOTHING_AGREED,
            syncs=Syncs(fs, volatile=plan.options.volatile),
        )
        self._scope: trio.CancelScope | None = None
        self._is_over = False
        self._most_nodes = 0  # since memory was given back
        self._handlers: dict[int, Handler] = {
            wire.INIT: self._init,
            wire.DESTROY: self._destroy,
            wire.INTERRUPT: self._interrupt,
            **NameRequests(context).handlers(),
            **AttributeRequests(context).handlers(),
            **FileRequests(context).handlers(),
            **DirectoryRequests(context).handlers(),
        }
        if not plan.options.xattrs:
            for opcode in _ON_XATTRS:
                del self._handlers[opcode]

    def serve_alone(self, signal_fd: int) -> bool:
        """Answer requests, without trio, until `signal_fd` can be read or trio is wanted.

        It is wanted when something waits for it, and where more is asked than by a small
        container: `serve` looks for the next request before it sleeps.

        Returns:
            Whether it is over: nothing is left to serve.
        """
        answered = 0
        try:
            for size in self._connection.requests_until(signal_fd):
                self._answer(size)
                answered += 1
                if self._context.pending.is_waiting or answered == _ALONE:
                    return False
        except ConnectionEnded:
            self._is_over = True
        return self._is_over

    def serve_until(self, ready_fd: int) -> None:
        """Answer requests, without trio, until `ready_fd` can be read.

        It takes longer to import trio than to mount, and most answers do not need it. What
        would wait is begun by `serve`.
        """
        try:
            for size in self._connection.requests_until(ready_fd):
                self._answer(size)
                if self._is_over:
                    return
        except ConnectionEnded:
            self._is_over = True

    async def serve(self) -> None:
        """Answer requests until the filesystem is unmounted or `stop` is called."""
        import trio

        if self._is_over:
            return
        connection = self._connection
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                self._context.pending.begin(nursery)
                tasks = nursery.child_tasks
                try:
                    while True:
                        size = connection.receive(may_poll=not tasks)
                        if size:
                            self._answer(size)
                            if tasks:  # they get their turn however fast requests come
                                await trio.lowlevel.checkpoint()
                        else:
                            self._give_back()
                            await connection.wait()
                except ConnectionEnded:
                    nursery.cancel_scope.cancel()

    def _give_back(self) -> None:
        """Return memory to the system when the kernel has forgotten most of the nodes.

        Without the collection, what Python keeps for reuse (free lists) holds the arenas that
        the nodes were in.
        """
        nodes = len(self._fs.union.table)
        if nodes > self._most_nodes:
            self._most_nodes = nodes
        elif nodes < self._most_nodes // 2 and self._most_nodes > _MANY_NODES:
            self._most_nodes = nodes
            gc.collect()
            memory.trim()

    def stop(self) -> None:
        """Make `serve` return."""
        self._is_over = True
        if self._scope is not None:
            self._scope.cancel()

    def close(self) -> None:
        """Close the connection."""
        self._context.pending.close()
        self._connection.close()

    def statistics(self) -> str:
        """Return the number of nodes and of requests by kind, in one line."""
        counted = [(count, code) for code, count in enumerate(self.requests) if count]
        kinds = [f"{self._kind(code)} {count}" for count, code in sorted(counted, reverse=True)]
        return f"{len(self._fs.union.table)} nodes; requests: {', '.join(kinds) or 'none'}"

    def _kind(self, opcode: int) -> str:
        handler = self._handlers.get(opcode)
        if handler is None:
            return _UNANSWERED.get(opcode, f"opcode-{opcode}")
        return handler.__name__.lstrip("_")

    def _answer(self, size: int) -> None:
        buffer = self._connection.request
        head: Head = wire.IN_HEADER.unpack_from(buffer)
        opcode = head[1]
        self.requests[opcode] += 1
        request: bytes | memoryview = buffer[:size]
        if opcode != wire.WRITE:
            request = bytes(request)
        handler = self._handlers.get(opcode)
        if handler is None:  # OPENDIR and FLUSH among them: the kernel asks no more
            self._connection.reply_error(head[2], errno.ENOSYS)
            return
        try:
            reply = handler(head, request)
        except OSError as err:
            self._connection.reply_error(head[2], err.errno or errno.EIO)
        except CopyUpNeeded:
            self._context.pending.after_copy_up(head, self._kind(opcode), handler, request)
        except MountError:  # of INIT: there is nothing to serve
            raise
        except Exception as err:
            self._context.pending.fail(head, self._kind(opcode), err)
        else:
            if reply is not None:
                self._connection.send(reply)

    def _init(self, head: Head, request: bytes) -> None:
        try:
            agreement, reply = negotiate(
                request[BODY:],
                self._wanted_io,
                writeback=self._options.writeback or False,
                export=self._options.nfs_export,
                has_acls=self._options.acl,
            )
        except TooOldError as err:
            self._connection.reply_error(head[2], errno.EPROTO)
            raise MountError(str(err)) from None
        log.debug("agreed: %s", agreement)
        self._context.agreement = agreement
        self._connection.reply(head[2], reply)
        raise_readahead(self._mountpoint)
        self._on_init()

    def _destroy(self, head: Head, request: bytes) -> bytes:
        return done(head[2])

    def _interrupt(self, head: Head, request: bytes) -> None:
        self._context.pending.interrupt(wire.INTERRUPT_IN.unpack_from(request, BODY)[0])
