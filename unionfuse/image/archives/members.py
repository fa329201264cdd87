"""Read an archive in one pass, from a pipe too: what is in it becomes blobs as it comes by.

Only then is it known which of them an image has; those that none has are removed by gc.
"""

from __future__ import annotations

import posixpath
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from unionfuse.image.digest import Digest, parse_digest
from unionfuse.image.errors import Malformed, NotFound, Refused
from unionfuse.image.layers.compression import decompressed
from unionfuse.image.manifest import MAX_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from unionfuse.image.layers.compression import Readable
    from unionfuse.image.store.blobs import Blobs
    from unionfuse.image.watch import Watch

_CHUNK = 1 << 20
_MAX_HEADER = 1 << 20  # bytes of what extends the header of one member
_MAX_MEMBERS = 100_000
_DOCUMENTS = frozenset({"oci-layout", "index.json", "manifest.json", "repositories"})
_BLOBS = "blobs/"


@dataclass(slots=True)
class Members:
    """What an archive has.

    Attributes:
        documents: the bytes of those that tell what the others are, by name.
        digests: the blobs that the other files became, by name.
        links: names that stand for others.
    """

    documents: dict[str, bytes] = field(default_factory=dict)
    digests: dict[str, Digest] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def digest(self, name: str) -> Digest:
        """Return the blob of a file, through links.

        Raises:
            NotFound: if the archive does not have it.
        """
        at = posixpath.normpath(name)
        for _ in range(len(self.links) + 1):
            if at in self.digests:
                return self.digests[at]
            if at not in self.links:
                break
            at = self.links[at]
        raise NotFound(f"the archive has no {name}")


def read_members(file: Readable, blobs: Blobs, watch: Watch, total: int) -> Members:
    """Read an archive to its end.

    Args:
        file: a tar, plain or compressed by gzip or zstd.
        blobs: take what is in it.
        watch: is told how far it is.
        total: bytes of `file`; 0 if that is not known.

    Raises:
        Malformed: if it is no tar, or cut.
        Refused: if it has more than is read.
        StoreError: if there is no room.
    """
    members = Members()
    stream = _Forward(decompressed(_Counted(file, watch, total)))
    try:
        with tarfile.TarFile(fileobj=cast("IO[bytes]", stream), mode="r") as tar:
            for count, member in enumerate(tar):
                if count >= _MAX_MEMBERS:
                    raise Refused(f"the archive has more than {_MAX_MEMBERS} files")
                _take(tar, member, members, blobs)
                tar.members = []  # type: ignore[attr-defined] # nobody asks for them again
        stream.drain()
    except tarfile.TarError as err:
        raise Malformed(f"this is no archive of images: {err}") from None
    return members


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, members: Members, blobs: Blobs) -> None:
    name = posixpath.normpath(member.name)
    if member.issym():
        target = posixpath.join(posixpath.dirname(name), member.linkname)
        members.links[name] = posixpath.normpath(target)
    elif member.islnk():
        members.links[name] = posixpath.normpath(member.linkname)
    elif member.isreg():
        file = tar.extractfile(member)
        assert file is not None, "a regular file has data"
        if name in _DOCUMENTS:
            if member.size > MAX_DOCUMENT:
                raise Refused(f"{name} has {member.size} bytes; at most {MAX_DOCUMENT} are read")
            members.documents[name] = file.read()
        else:
            members.digests[name] = _blob(name, member.size, file, blobs)


def _blob(name: str, size: int, file: IO[bytes], blobs: Blobs) -> Digest:
    """Make a blob of a file; that of an image layout has to be what its name says."""
    if not name.startswith(_BLOBS):
        with blobs.new() as writer:
            while data := file.read(_CHUNK):
                writer.write(data)
            return writer.commit()
    digest = parse_digest(":".join(name.split("/")[1:]))
    if digest in blobs:
        return digest
    with blobs.begin(digest, size) as writer:
        writer.restart()
        while data := file.read(_CHUNK):
            writer.write(data)
        return writer.commit()


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: Readable, watch: Watch, total: int) -> None:
        self._file = file
        self._watch = watch
        self._total = total
        self._done = 0

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size) or b""
        self._done += len(data)
        self._watch("reading", self._done, self._total)
        return data


class _Forward:
    """A stream that `tarfile` takes for a file: it goes forward only, and by small steps.

    `tarfile` reads the extended header of a member at once, however large it says it is.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""
        self._at = 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, _whence: int = 0) -> int:
        while self._at < offset:
            if not self._pass(min(offset - self._at, _CHUNK)):
                break
        return self._at

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > max(_MAX_HEADER, MAX_DOCUMENT):
            raise Refused("the archive has a header that is larger than is read")
        parts = []
        while size > 0 and (data := self._pass(size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def drain(self) -> None:
        """Read what is behind the last member: a stream that is cut there is cut, too."""
        while self._pass(_CHUNK):
            pass

    def _pass(self, size: int) -> bytes:
        if not self._held:
            self._held = next(self._pieces, b"")
        data, self._held = self._held[:size], self._held[size:]
        self._at += len(data)
        return data
