"""Read an archive in one pass, from a pipe too: what is in it becomes blobs as it comes by.

Only then is it known which of them an image has; those that none has are removed by gc.
"""

from __future__ import annotations

import os
import posixpath
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unionfuse.image.digest import Digest, parse_digest
from unionfuse.image.errors import Malformed, NotFound, Refused
from unionfuse.image.layers.ahead import ahead
from unionfuse.image.layers.compression import decompressed
from unionfuse.image.layers.limits import Limits
from unionfuse.image.layers.reader import TarReader
from unionfuse.image.manifest import MAX_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.image.layers.compression import Readable
    from unionfuse.image.layers.member import Member
    from unionfuse.image.store.blobs import Blobs
    from unionfuse.image.watch import Watch

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
    limits = Limits(entries=_MAX_MEMBERS)
    count = 0
    try:
        with ahead(decompressed(_Counted(file, watch, total))) as pieces:
            tar = TarReader(pieces, limits)
            for count, member in enumerate(tar, 1):
                if count > limits.entries:
                    raise Refused(f"the archive has more than {_MAX_MEMBERS} files")
                _take(tar, member, members, blobs)
    except Malformed as err:
        if count:
            raise
        raise Malformed(f"this is no archive of images: {err}") from None
    return members


def _take(tar: TarReader, member: Member, members: Members, blobs: Blobs) -> None:
    name = posixpath.normpath(os.fsdecode(member.name))
    if stat.S_ISLNK(member.fmt):
        target = posixpath.join(posixpath.dirname(name), os.fsdecode(member.target))
        members.links[name] = posixpath.normpath(target)
    elif not member.fmt:
        members.links[name] = posixpath.normpath(os.fsdecode(member.target))
    elif stat.S_ISREG(member.fmt):
        if member.extents is not None:
            raise Refused(f"{name} has holes, which no archive of images is made with")
        if name in _DOCUMENTS:
            if member.size > MAX_DOCUMENT:
                raise Refused(f"{name} has {member.size} bytes; at most {MAX_DOCUMENT} are read")
            members.documents[name] = b"".join(tar.data())
        else:
            members.digests[name] = _blob(name, member.size, tar.data(), blobs)


def _blob(name: str, size: int, pieces: Iterator[memoryview], blobs: Blobs) -> Digest:
    """Make a blob of a file; that of an image layout has to be what its name says."""
    if not name.startswith(_BLOBS):
        with blobs.new() as writer:
            for data in pieces:
                writer.write(data)
            return writer.commit()
    digest = parse_digest(":".join(name.split("/")[1:]))
    if digest in blobs:
        return digest
    with blobs.anew(digest, size) as writer:
        for data in pieces:
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
