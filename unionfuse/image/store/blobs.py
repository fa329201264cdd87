"""Blobs on disk, each under its digest.

    BLOBS/sha256/HEX      complete, verified, on disk: never changed, only removed
    TMP/partial-HEX       bytes that came so far of a transfer, locked by who writes it
    TMP/new-RANDOM        bytes whose digest is not known yet, locked likewise

A blob appears by one rename, after its bytes were compared with its digest and brought to disk:
a crash leaves it there whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING, BinaryIO, Self

from unionfuse.image.digest import Digest, Digester, algorithm_of, digest_of, encoded_of
from unionfuse.image.errors import Corrupt, NotFound, StoreError
from unionfuse.image.manifest import MAX_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_CHUNK = 1 << 20


class Blobs:
    """The blobs below one directory, which many processes may use at once."""

    def __init__(
        self, directory: Path, tmp: Path, use: Callable[[Digest], None] = lambda _: None
    ) -> None:
        """Keep blobs below `directory`, and what is not complete in `tmp`, on one filesystem.

        `use` is called with each digest before it is looked for or appears, so that it is kept.
        """
        self.directory = directory
        self.tmp = tmp
        self._use = use

    def path(self, digest: Digest) -> Path:
        """Return where a blob is, if it is there."""
        return self.directory / algorithm_of(digest) / encoded_of(digest)

    def __contains__(self, digest: Digest) -> bool:
        """Tell whether a blob is there, which is kept then as long as this command runs."""
        self._use(digest)
        return self.path(digest).exists()

    def use(self, digest: Digest) -> None:
        """Say that a blob is to be kept as long as this command runs."""
        self._use(digest)

    def size(self, digest: Digest) -> int:
        """Return the bytes of a blob.

        Raises:
            NotFound: if it is not there.
        """
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"no blob {digest} in the store") from None

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob to read it; who reads it compares it with its digest.

        Raises:
            NotFound: if it is not there.
        """
        try:
            return self.path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"no blob {digest} in the store") from None

    def read(self, digest: Digest, limit: int = MAX_DOCUMENT) -> bytes:
        """Return a small blob, verified.

        Raises:
            NotFound: if it is not there.
            Corrupt: if it is damaged, or larger than `limit` bytes.
        """
        with self.open(digest) as file:
            data = file.read(limit + 1)
        if len(data) > limit or _digest_as(digest, data) != digest:
            raise Corrupt(f"blob {digest} in the store is damaged")
        return data

    def put(self, data: bytes) -> Digest:
        """Keep `data`; it may be there already."""
        digest = digest_of(data)
        if digest not in self:
            with self.new() as writer:
                writer.write(data)
                writer.commit()
        return digest

    def new(self) -> BlobWriter:
        """Begin a blob whose digest only its bytes tell; use it in a `with`."""
        try:
            fd, name = _new_locked(self.tmp)
        except OSError as err:
            raise as_store_error(err) from None
        return BlobWriter(self, fd, name, None, None)

    def begin(self, digest: Digest, size: int | None) -> BlobWriter:
        """Begin or go on with a blob that has to become `digest`; use it in a `with`.

        What an earlier transfer left is taken up: `offset` of the writer says how much. Waits
        for another process that is writing the same blob; look then whether it is there.
        """
        self._use(digest)
        name = os.fsencode(self.tmp / f"partial-{encoded_of(digest)}")
        try:
            fd = _open_locked(name)
        except OSError as err:
            raise as_store_error(err) from None
        return self._take_up(fd, name, digest, size)

    @contextlib.contextmanager
    def anew(self, digest: Digest, size: int | None) -> Iterator[BlobWriter]:
        """Begin as `begin` does, from the first byte; what came of it stays only if it is whole."""
        with self.begin(digest, size) as writer:
            writer.restart()
            try:
                yield writer
            except BaseException:
                writer.abandon()
                raise

    def try_begin(self, digest: Digest, size: int | None) -> BlobWriter | None:
        """Begin as `begin` does; None at once if another process is writing the same blob."""
        self._use(digest)
        name = os.fsencode(self.tmp / f"partial-{encoded_of(digest)}")
        try:
            fd = _open_locked(name, fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError as err:
            raise as_store_error(err) from None
        return self._take_up(fd, name, digest, size)

    def _take_up(self, fd: int, name: bytes, digest: Digest, size: int | None) -> BlobWriter:
        writer = BlobWriter(self, fd, name, digest, size)
        try:
            writer.take_up()
        except BaseException:
            os.close(fd)
            raise
        return writer

    def remove(self, digest: Digest) -> int:
        """Remove a blob; return the bytes that it had, 0 if it was not there."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def __iter__(self) -> Iterator[Digest]:
        for algorithm in ("sha256", "sha512"):
            with contextlib.suppress(FileNotFoundError):
                for entry in os.scandir(self.directory / algorithm):
                    yield Digest(f"{algorithm}:{entry.name}")


class BlobWriter:
    """A blob that is being written.

    Attributes:
        offset: bytes that are there already, of an earlier transfer.
    """

    def __init__(
        self, blobs: Blobs, fd: int, name: bytes, digest: Digest | None, size: int | None
    ) -> None:
        """Write to `fd`, open at `name`; `digest` and `size` are what it has to become."""
        self._blobs = blobs
        self._fd = fd
        self._name = name
        self._expected = digest
        self._size = size
        self._digester = Digester(algorithm_of(digest) if digest else "sha256")
        self.offset = 0

    def take_up(self) -> None:
        """Take what is there into the digest; more than there is to be is thrown away."""
        while data := os.pread(self._fd, _CHUNK, self._digester.size):
            self._digester.update(data)
        if self._size is not None and self._digester.size > self._size:
            self.restart()
        self.offset = self._digester.size

    def restart(self) -> None:
        """Throw away what was written: it comes again from the first byte."""
        os.ftruncate(self._fd, 0)
        self._digester = Digester(algorithm_of(self._expected) if self._expected else "sha256")
        self.offset = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write the next bytes.

        Raises:
            StoreError: if there is no room.
            Corrupt: if they are more than the size that was said.
        """
        view = memoryview(data)
        if self._size is not None and self._digester.size + len(view) > self._size:
            raise Corrupt(f"blob {self._expected} has more than its {self._size} bytes")
        written = 0
        while written < len(view):
            try:
                written += os.pwrite(self._fd, view[written:], self._digester.size + written)
            except OSError as err:
                raise as_store_error(err) from None
        self._digester.update(view)
        return written

    @property
    def size(self) -> int:
        """The bytes that there are by now, with those of an earlier transfer."""
        return self._digester.size

    def commit(self) -> Digest:
        """Verify what was written, bring it to disk and give it its name.

        Raises:
            Corrupt: if it is not what it had to become; nothing of it is kept then.
            StoreError: if there is no room.
        """
        if self._expected is not None:
            try:
                self._digester.check(self._expected, self._size, f"blob {self._expected}")
            except Corrupt:
                os.unlink(self._name)
                raise
        digest = self._digester.digest()
        self._blobs.use(digest)
        path = self._blobs.path(digest)
        try:
            os.fchmod(self._fd, 0o644)
            os.fsync(self._fd)  # before the name: a crash would leave a name of other bytes
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            os.rename(self._name, path)
            sync_directory(path.parent)
        except OSError as err:
            raise as_store_error(err) from None
        return digest

    def abandon(self) -> None:
        """Let go of it, and of what came so far."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._name), os.fstat(self._fd)):
                os.unlink(self._name)
        self.close()

    def close(self) -> None:
        """Let go of it; of a digest that is known what came so far stays, to be taken up."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        if self._expected is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def as_store_error(err: OSError) -> OSError | StoreError:
    """Return what to raise for `err`: what users of a store can mend is said in their words."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError("no room is left for the store; nothing that was in it is lost")
    return err


def _digest_as(digest: Digest, data: bytes) -> Digest:
    if algorithm_of(digest) == "sha256":
        return digest_of(data)
    digester = Digester(algorithm_of(digest))
    digester.update(data)
    return digester.digest()


def _new_locked(directory: Path) -> tuple[int, bytes]:
    import tempfile  # reading needs none

    while True:
        fd, name = tempfile.mkstemp(prefix="new-", dir=directory)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:  # else it was swept away before it was locked
            return fd, os.fsencode(name)
        os.close(fd)


def _open_locked(name: bytes, how: int = 0) -> int:
    """Open a partial blob and wait for whoever else writes it; not with `how` LOCK_NB."""
    while True:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | how)
        except BaseException:
            os.close(fd)
            raise
        try:
            same = os.stat(name).st_ino == os.fstat(fd).st_ino
        except FileNotFoundError:  # the other has completed it
            same = False
        if same:
            return fd
        os.close(fd)
