"""The descriptor of /dev/fuse: requests are read from it and replies written to it.

Waking a core that sleeps costs more than most requests do. So while requests come close upon
each other, the next is looked for a little while before the task waits for it (adaptive polling).
"""

from __future__ import annotations

import errno
import os
import select
from time import perf_counter
from typing import TYPE_CHECKING

from unionfuse.fuse.kernel import wire
from unionfuse.fuse.kernel.init import MAX_WRITE

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUFFER_SIZE = MAX_WRITE + 4096
_WAKE_SECONDS = 60e-6  # that a wake-up takes, over and above the time without a request
_CONTENDED_SECONDS = 40e-6  # longer than this a look does not take unless others want the core
_REST = 64  # waits without polling, when others want the core
_LOOK = 64  # requests, after which another descriptor is looked at
_WITHDRAWN = (errno.EINTR, errno.ENOENT, errno.EAGAIN)
_ENDED = (errno.ENODEV, errno.ECONNABORTED)


class ConnectionEnded(Exception):
    """The filesystem is unmounted, or the connection was aborted."""


class Connection:
    """One connection to the kernel.

    Attributes:
        fd: of /dev/fuse; the connection's to close.
        request: where `receive` leaves the request.
    """

    def __init__(self, fd: int, poll_seconds: float) -> None:
        """Serve `fd`, looking for requests for up to `poll_seconds` before waiting for them."""
        os.set_blocking(fd, False)
        self.fd = fd
        buffer = bytearray(_BUFFER_SIZE)
        self.request = memoryview(buffer)
        self._buffers = [buffer]
        self._window = poll_seconds
        self._is_busy = False
        self._rest = 0

    def close(self) -> None:
        """Close the connection."""
        os.close(self.fd)

    def receive(self, *, may_poll: bool) -> int:
        """Read one request into `request` and return its size; 0 if none is there.

        Raises:
            ConnectionEnded: when no more requests come.
        """
        try:
            return os.readv(self.fd, self._buffers)
        except BlockingIOError:
            return self._poll() if may_poll and self._is_busy else 0
        except OSError as err:
            return self._no_request(err)

    def _poll(self) -> int:
        if self._rest:
            self._rest -= 1
            return 0
        looked = perf_counter()
        until = looked + self._window
        while looked < until:
            os.sched_yield()
            try:
                return os.readv(self.fd, self._buffers)
            except BlockingIOError:
                before, looked = looked, perf_counter()
                if looked - before > _CONTENDED_SECONDS:
                    self._rest = _REST
                    break
            except OSError as err:
                return self._no_request(err)
        return 0

    def _no_request(self, err: OSError) -> int:
        if err.errno in _ENDED:
            raise ConnectionEnded from None
        if err.errno not in _WITHDRAWN:  # a request that is withdrawn before it is read
            raise err
        return 0

    def requests_until(self, other_fd: int, *, may_poll: bool = False) -> Iterator[int]:
        """Receive requests, without trio, until `other_fd` can be read; 0 before each wait.

        Raises:
            ConnectionEnded: when no more requests come.
        """
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        poller.register(other_fd, select.POLLIN)
        count = 0
        while True:
            size = self.receive(may_poll=may_poll)
            yield size
            count += 1
            if size and count % _LOOK:  # however fast they come, the other gets a look
                continue
            began = perf_counter()
            if any(fd == other_fd for fd, _ in poller.poll(0 if size else None)):
                return
            if not size:
                self._note_wait(perf_counter() - began)

    async def wait(self) -> None:
        """Wait for a request."""
        import trio

        if not self._window:
            await trio.lowlevel.wait_readable(self.fd)
            return
        began = perf_counter()
        await trio.lowlevel.wait_readable(self.fd)
        self._note_wait(perf_counter() - began)

    def _note_wait(self, seconds: float) -> None:
        self._is_busy = seconds < self._window + _WAKE_SECONDS

    def reply(self, unique: int, payload: bytes | memoryview) -> None:
        """Answer a request with what it asks for."""
        header = wire.OUT_HEADER.pack(wire.OUT_HEADER.size + len(payload), 0, unique)
        try:
            os.writev(self.fd, (header, payload))
        except OSError as err:
            self._no_reply(err)

    def reply_error(self, unique: int, code: int) -> None:
        """Answer a request with errno `code`; 0 means that it is done and tells no more."""
        self.send(wire.OUT_HEADER.pack(wire.OUT_HEADER.size, -code, unique))

    def send(self, message: bytes) -> None:
        """Write a whole reply."""
        try:
            os.write(self.fd, message)
        except OSError as err:
            self._no_reply(err)

    def _no_reply(self, err: OSError) -> None:
        # ENOENT: the request was interrupted and waits no more.
        if err.errno not in (errno.ENOENT, *_ENDED):
            raise err

    def forget_attributes(self, nodeid: int) -> None:
        """Have the kernel ask for the attributes of `nodeid` again."""
        self._invalidate(nodeid, -1)

    def flush_pages(self, nodeid: int) -> None:
        """Have the kernel write back and drop its pages of `nodeid`.

        Waits for the WRITEs, so it is to be called in a thread.
        """
        self._invalidate(nodeid, 0)

    def _invalidate(self, nodeid: int, offset: int) -> None:
        body = wire.NOTIFY_INVAL_INODE_OUT.pack(nodeid, offset, 0)
        size = wire.OUT_HEADER.size + len(body)
        self.send(wire.OUT_HEADER.pack(size, wire.NOTIFY_INVAL_INODE, 0) + body)
