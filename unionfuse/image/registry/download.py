"""Get one blob, from the byte where an earlier transfer ended (RFC 9110, 14: ranges)."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, cast

import httpx
import trio

from unionfuse.image.errors import Corrupt, RegistryError
from unionfuse.image.registry.connection import Ask
from unionfuse.image.registry.progress import DONE, PRESENT
from unionfuse.image.registry.retry import Attempts, Transient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from unionfuse.image.manifest import Descriptor
    from unionfuse.image.registry.connection import Timeouts
    from unionfuse.image.registry.progress import Progress
    from unionfuse.image.registry.repository import Repository
    from unionfuse.image.store.blobs import Blobs, BlobWriter

_PIECE = 1 << 20
_WORTH = 256 << 10  # an attempt that got as many bytes is no failed one
_POLL = 0.2  # seconds between looks at a blob that another process gets
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


async def download(
    repository: Repository, descriptor: Descriptor, blobs: Blobs, progress: Progress
) -> bool:
    """Have a blob in the store; return whether it had to be transferred.

    Raises:
        Corrupt: if what came does not have the digest or the size of the descriptor.
        RegistryError: if it does not come, or stops coming.
        StoreError: if there is no room.
    """
    progress.begin(descriptor)
    while True:
        writer = await _begin(descriptor, blobs)
        if writer is None:
            progress.end(descriptor.digest, PRESENT)
            return False
        with writer:
            was_taken_up = writer.offset > 0
            transfer = _Transfer(repository, descriptor, writer, progress)
            await transfer.run()
            try:
                await trio.to_thread.run_sync(writer.commit)
            except Corrupt:
                # after a crash the part that was taken up may be none of the blob's
                if not was_taken_up:
                    raise
                continue
        progress.end(descriptor.digest, DONE)
        return True


def is_present(descriptor: Descriptor, blobs: Blobs) -> bool:
    """Tell whether a blob is in the store.

    Raises:
        Corrupt: if it is there, and has another size than the descriptor says.
    """
    if descriptor.digest not in blobs:
        return False
    size = blobs.size(descriptor.digest)
    if size != descriptor.size:
        raise Corrupt(f"blob {descriptor.digest} has {size} bytes, not {descriptor.size}")
    return True


async def _begin(descriptor: Descriptor, blobs: Blobs) -> BlobWriter | None:
    """Return a writer that no other process has; None as soon as the blob is there."""
    while not is_present(descriptor, blobs):
        writer = await trio.to_thread.run_sync(
            lambda: blobs.try_begin(descriptor.digest, descriptor.size)
        )
        if writer is None:
            await trio.sleep(_POLL)
        elif descriptor.digest in blobs:  # completed between the look and the lock
            writer.abandon()
        else:
            return writer
    return None


class _Transfer:
    """The attempts to get one blob."""

    def __init__(
        self,
        repository: Repository,
        descriptor: Descriptor,
        writer: BlobWriter,
        progress: Progress,
    ) -> None:
        self._repository = repository
        self._connection = repository.connection
        self._descriptor = descriptor
        self._writer = writer
        self._progress = progress
        self._what = f"blob {descriptor.digest} of {repository.name}"

    async def run(self) -> None:
        """Get all of it."""
        attempts = Attempts(self._connection.options.retry)
        self._progress.at(self._descriptor.digest, self._writer.size)
        most = self._writer.size
        while self._writer.size < self._descriptor.size:
            try:
                await self._attempt()
            except Transient as err:
                if self._writer.size - most >= _WORTH:
                    most = self._writer.size
                    attempts.progressed()
                await attempts.failed(err)
            except Corrupt:
                self._restart()  # nothing of it is worth to be taken up
                raise

    async def _attempt(self) -> None:
        offset = self._writer.size
        ask = Ask(
            self._what,
            "GET",
            self._repository.path(f"blobs/{self._descriptor.digest}"),
            scopes=self._repository.scopes,
            headers={"Range": f"bytes={offset}-"} if offset else {},
            ok=frozenset({200, 206, 416}) if offset else frozenset({200}),
        )
        async with self._connection.stream(ask) as response:
            self._check(response, offset)
            timeouts = self._connection.options.timeouts
            async with contextlib.aclosing(_pieces(response, timeouts)) as pieces:
                async for piece in pieces:
                    await trio.to_thread.run_sync(self._writer.write, piece)
                    self._progress.at(self._descriptor.digest, self._writer.size)
        if self._writer.size < self._descriptor.size:
            raise self._transient(
                f"ended after {self._writer.size} of {self._descriptor.size} bytes"
            )

    def _check(self, response: httpx.Response, offset: int) -> None:
        """Look at the head of an answer: whether the bytes to come are those that are wanted."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise RegistryError(f"{self._connection.registry}: {self._what}: sent encoded")
        if response.status_code == 416:
            self._restart()
            raise self._transient("the rest of it can not be had alone")
        if response.status_code == 206:
            value = response.headers.get("content-range", "")
            match = _CONTENT_RANGE.fullmatch(value)
            total = str(self._descriptor.size)
            if match is None or int(match[1]) != offset or match[3] not in (total, "*"):
                self._restart()
                raise self._transient(f"another range than the one asked for: {value[:80]!r}")
            return
        length = response.headers.get("content-length")
        if length is not None and length.isdecimal() and int(length) != self._descriptor.size:
            raise Corrupt(
                f"{self._connection.registry}: {self._what} has {length} bytes, "
                f"not the {self._descriptor.size} that it was named with"
            )
        if offset:  # ranges are no must: it comes from the first byte
            self._restart()

    def _restart(self) -> None:
        self._writer.restart()
        self._progress.at(self._descriptor.digest, 0)

    def _transient(self, text: str) -> Transient:
        return Transient(f"{self._connection.registry}: {self._what}: {text}")


async def _pieces(response: httpx.Response, timeouts: Timeouts) -> AsyncGenerator[bytes]:
    """Yield a body in pieces of a size that is worth a thread.

    Raises:
        Transient: if it comes so slowly that it may never end.
    """
    body = cast("AsyncGenerator[bytes]", response.aiter_raw())  # as it is, if not by its type
    waiting: list[bytes] = []
    size = 0
    since, came = trio.current_time(), 0
    try:
        async with contextlib.aclosing(body) as chunks:
            async for chunk in chunks:
                waiting.append(chunk)
                size += len(chunk)
                came += len(chunk)
                if size >= _PIECE:
                    yield b"".join(waiting)
                    waiting, size = [], 0
                now = trio.current_time()
                if now - since >= timeouts.pace:
                    if came < timeouts.least:
                        host = response.url.host
                        raise Transient(f"{host}: only {came} bytes in {now - since:.0f} s")
                    since, came = now, 0
    except httpx.TransportError:
        if waiting:
            yield b"".join(waiting)  # the next attempt begins after it
        raise
    if waiting:
        yield b"".join(waiting)
