"""Bring one blob to a registry (distribution-spec, "Pushing blobs").

is it there?  HEAD                                     then nothing is sent
elsewhere?    POST uploads/?mount=DIGEST&from=OTHER    the registry takes it from there
small         POST uploads/, PUT LOCATION?digest=      in one piece, again if that fails
large         POST uploads/, PATCH LOCATION ..., PUT   in chunks; after a failure GET LOCATION
                                                       says how much arrived
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import trio

from unionfuse.image.errors import Corrupt, NotFound, RegistryError
from unionfuse.image.registry.connection import Ask
from unionfuse.image.registry.progress import DONE, MOUNTED, PRESENT
from unionfuse.image.registry.repository import pull_scopes
from unionfuse.image.registry.retry import Attempts, Transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from unionfuse.image.manifest import Descriptor
    from unionfuse.image.registry.connection import Answer
    from unionfuse.image.registry.progress import Progress
    from unionfuse.image.registry.repository import Repository
    from unionfuse.image.store.blobs import Blobs

_READ = 256 << 10  # at once; the time to write is meant for as much
_REFUSED = frozenset({400, 401, 403, 405})  # statuses of a registry that does not mount
_NO_CHUNKS = frozenset({400, 405, 411, 413, 415, 501})  # ... that takes no chunks
_BYTES = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Sizes:
    """When a blob is sent in chunks, and how large they are (bytes)."""

    whole: int = 16 << 20
    chunk: int = 64 << 20


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """How to upload; `sources` are other repositories of the registry that may have the blob."""

    sizes: Sizes = field(default_factory=Sizes)
    sources: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Session:
    """An upload that the registry has begun.

    Attributes:
        location: where the next request of it goes.
        offset: bytes that the registry has.
        least: bytes that a chunk has to have, but for the last one.
    """

    location: str
    offset: int = 0
    least: int = 0


async def upload(
    repository: Repository,
    descriptor: Descriptor,
    blobs: Blobs,
    options: UploadOptions,
    progress: Progress,
) -> str:
    """Have a blob of the store at the registry; return what it took, a word of `progress`.

    Raises:
        NotFound: if the store does not have it.
        Corrupt: if the store has it with another size, or the registry says with another digest.
        RegistryError: if the registry does not take it.
    """
    size = blobs.size(descriptor.digest)
    if size != descriptor.size:
        raise Corrupt(f"blob {descriptor.digest} has {size} bytes, not {descriptor.size}")
    progress.begin(descriptor)
    with blobs.open(descriptor.digest) as file:
        outcome = await _Upload(repository, descriptor, file.fileno(), options, progress).run()
    progress.end(descriptor.digest, outcome)
    return outcome


class _Upload:
    """The attempts to bring one blob there."""

    def __init__(
        self,
        repository: Repository,
        descriptor: Descriptor,
        fd: int,
        options: UploadOptions,
        progress: Progress,
    ) -> None:
        self._repository = repository
        self._connection = repository.connection
        self._digest = descriptor.digest
        self._size = descriptor.size
        self._fd = fd
        self._scopes = repository.scopes
        self._options = options
        self._progress = progress
        self._what = f"blob {descriptor.digest} to {repository.name}"
        self._of = f"{self._connection.registry}: {self._what}"

    async def run(self) -> str:
        if await self._repository.has_blob(self._digest):
            return PRESENT
        session: _Session | None = None
        for source in self._options.sources:
            if source == self._repository.name:
                continue
            is_mounted, session = await self._mount(source)
            if is_mounted:
                return MOUNTED
            if session is not None:
                break  # an upload was begun instead: go on with it
        if self._size > self._options.sizes.whole:
            try:
                return await self._in_chunks(session)
            except RegistryError as err:
                if err.status not in _NO_CHUNKS:
                    raise
                session = None
        return await self._at_once(session)

    async def _mount(self, source: str) -> tuple[bool, _Session | None]:
        path = f"blobs/uploads/?mount={quote(self._digest)}&from={quote(source)}"
        ask = Ask(
            self._what,
            "POST",
            self._repository.path(path),
            scopes=self._scopes | pull_scopes(source),
            ok=frozenset({201, 202}),
        )
        try:
            answer = await self._connection.call(ask)
        except (NotFound, Transient):
            return False, None
        except RegistryError as err:
            if err.status not in _REFUSED:
                raise
            return False, None
        return answer.status == 201, None if answer.status == 201 else _session(answer, 0)

    async def _at_once(self, session: _Session | None) -> str:
        attempts = Attempts(self._connection.options.retry)
        while True:
            try:
                session = session or await self._begin()
                await self._put(session.location, 0)
                return DONE
            except Transient as err:
                session = None  # half a body may have come: begin another one
                await attempts.failed(err)
                if await self._repository.has_blob(self._digest):
                    return DONE  # only the answer was lost

    async def _in_chunks(self, session: _Session | None) -> str:
        attempts = Attempts(self._connection.options.retry)
        is_sure = True  # of how much the registry has
        most = 0
        while True:
            try:
                session = session or await self._begin()
                if not is_sure:
                    session = await self._ask_offset(session)
                    is_sure = True
                while session.offset < self._size:
                    session = await self._patch(session)
                    if session.offset > most:
                        most = session.offset
                        attempts.progressed()
                await self._put(session.location, self._size)
                return DONE
            except Transient as err:
                is_sure = False
                await attempts.failed(err)
            except NotFound as err:
                # It forgot the upload, perhaps because it is complete and the answer was lost.
                session, is_sure = None, True
                await attempts.failed(Transient(str(err)))
                if await self._repository.has_blob(self._digest):
                    return DONE
            except RegistryError as err:
                if err.status != 416:
                    raise
                is_sure = False
                await attempts.failed(Transient(str(err), status=416, code=err.code))

    async def _begin(self) -> _Session:
        path = self._repository.path("blobs/uploads/")
        ask = Ask(self._what, "POST", path, scopes=self._scopes, ok=frozenset({202}))
        session = _session(await self._connection.call(ask), 0)
        if session is None:
            raise RegistryError(f"{self._of}: the registry does not say where to send it")
        return session

    async def _patch(self, session: _Session) -> _Session:
        start = session.offset
        end = min(self._size, start + max(self._options.sizes.chunk, session.least))
        ask = Ask(
            self._what,
            "PATCH",
            session.location,
            scopes=self._scopes,
            headers={
                "Content-Type": _BYTES,
                "Content-Length": str(end - start),
                "Content-Range": f"{start}-{end - 1}",
            },
            body=lambda: _Part(self._fd, start, end, self._sent),
            ok=frozenset({201, 202, 204}),
        )
        answer = await self._connection.call(ask)
        arrived = _arrived(answer)
        if arrived is not None and arrived != end:
            raise Transient(f"{self._of}: {end} bytes were sent, the registry has {arrived}")
        return self._next(session, answer, end)

    async def _ask_offset(self, session: _Session) -> _Session:
        """Ask how much of an upload arrived.

        Raises:
            NotFound: if the registry does not go on with this upload.
        """
        ask = Ask(
            self._what,
            "GET",
            session.location,
            scopes=self._scopes,
            ok=frozenset({200, 202, 204, 400}),
        )
        answer = await self._connection.call(ask)
        arrived = _arrived(answer)
        # 400 is what docker's registry has for an upload that was cut within a chunk
        if answer.status == 400 or arrived is None or arrived > self._size:
            raise NotFound(f"{self._of}: the registry does not say how much it has")
        return self._next(session, answer, arrived)

    def _next(self, session: _Session, answer: Answer, offset: int) -> _Session:
        following = _session(answer, offset) or session
        self._sent(offset)
        return _Session(following.location, offset, max(session.least, following.least))

    async def _put(self, location: str, start: int) -> None:
        """Send the rest, from `start`, and have the registry compare it all with the digest."""
        joint = "&" if "?" in location else "?"
        ask = Ask(
            self._what,
            "PUT",
            f"{location}{joint}digest={quote(self._digest)}",
            scopes=self._scopes,
            headers={"Content-Type": _BYTES, "Content-Length": str(self._size - start)},
            body=lambda: _Part(self._fd, start, self._size, self._sent),
            ok=frozenset({201, 204}),
            patient=True,
        )
        try:
            await self._connection.call(ask)
        except RegistryError as err:
            if err.code == "DIGEST_INVALID":
                raise Corrupt(f"blob {self._digest} in the store is damaged: {err}") from None
            raise
        self._sent(self._size)

    def _sent(self, offset: int) -> None:
        self._progress.at(self._digest, offset)


class _Part:
    """The bytes from `start` to `end` of an open file, to be sent."""

    def __init__(self, fd: int, start: int, end: int, tell: Callable[[int], None]) -> None:
        self._fd = fd
        self._at = start
        self._end = end
        self._tell = tell

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._tell(self._at)
        if self._at >= self._end:
            raise StopAsyncIteration
        want = min(_READ, self._end - self._at)
        data = await trio.to_thread.run_sync(os.pread, self._fd, want, self._at)
        if not data:
            raise Corrupt("a blob of the store became shorter while it was sent")
        self._at += len(data)
        return data


def _session(answer: Answer, offset: int) -> _Session | None:
    """Return the upload that an answer tells of; None if it tells of none."""
    location = answer.headers.get("location")
    if not location:
        return None
    least = answer.headers.get("oci-chunk-min-length", "")
    absolute = str(httpx.URL(answer.url).join(location))
    return _Session(absolute, offset, int(least) if least.isdecimal() else 0)


def _arrived(answer: Answer) -> int | None:
    """Return how many bytes a registry has of an upload; None if it does not say.

    The header is `Range: 0-LAST`. `0-0` is what docker's registry says of none at all.
    """
    first, dash, last = answer.headers.get("range", "").removeprefix("bytes=").partition("-")
    if first != "0" or not dash or not last.isdecimal():
        return None
    return int(last) + 1 if int(last) else 0
