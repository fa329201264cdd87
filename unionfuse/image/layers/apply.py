"""Apply a layer tar to the directory of that one layer (image-spec layer.md).

The directory is empty before, and thrown away if anything goes wrong; nothing outside of it is
touched, whatever the tar says. Every directory is walked one component at a time without following
a symlink. What layer.md leaves open is as containerd, docker and umoci have it:

- An entry in place of another one: of two directories the attributes are the later ones, all else
  is replaced.
- A name that leads through a symlink leads where that does, within the layer; one that leads out,
  or nowhere in this layer, is an error.
- Whiteouts and opaque marks are about the layers below alone. They are written last, so that it
  does not matter where in the tar they are: a whiteout beside a directory of its name makes that
  opaque, beside anything else it is not needed, in an opaque directory neither.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unionfuse.image.digest import Digest, Digester, algorithm_of
from unionfuse.image.errors import Malformed, Refused
from unionfuse.image.layers import paths
from unionfuse.image.layers.ahead import ahead
from unionfuse.image.layers.compression import Compression, Readable, decompressed
from unionfuse.image.layers.filedata import write_plain, write_sparse
from unionfuse.image.layers.form import ACL_DEFAULT
from unionfuse.image.layers.index import KIND_OF, IndexEntry, IndexWriter, xattrs_hash
from unionfuse.image.layers.limits import Limits
from unionfuse.image.layers.reader import TarReader, shown
from unionfuse.image.layers.target import Target
from unionfuse.layer import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unionfuse.image.layers.form import LayerForm
    from unionfuse.image.layers.member import Member


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A layer tar as it comes, and what it has to be.

    Attributes:
        file: is read to its end.
        compression: None to find out.
        digest, size: of the bytes in `file`; None if they are not known, or verified elsewhere.
        diff_id: of the uncompressed tar.
    """

    file: Readable
    compression: Compression | None = None
    digest: Digest | None = None
    size: int | None = None
    diff_id: Digest | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """What a layer was.

    Attributes:
        diff_id: digest of the uncompressed tar.
        tar_bytes: its size.
        digest, blob_bytes: of what was read.
        entries: of the tar, with whiteouts.
        file_bytes: of its regular files.
        implied: directories that have no entry, the root (empty) among them; their attributes
            are those of the layers below, see `complete_implied`.
        notes: what could not be kept, a line each.
    """

    diff_id: Digest
    tar_bytes: int
    digest: Digest
    blob_bytes: int
    entries: int
    file_bytes: int
    implied: tuple[bytes, ...]
    notes: tuple[str, ...] = ()


def apply_layer(
    blob: LayerBlob,
    target_fd: int,
    form: LayerForm,
    limits: Limits | None = None,
    index: IndexWriter | None = None,
    progress: Callable[[int], None] | None = None,
) -> Applied:
    """Apply a layer to the empty directory `target_fd`.

    Nothing is brought to disk: that is one syncfs(2) by the caller, at the end.

    Args:
        blob: the layer.
        target_fd: its directory.
        form: how it is kept there.
        limits: None for those that images do not meet.
        index: takes what there is.
        progress: is told the bytes of the blob that were read by now, in another thread.

    Raises:
        Malformed, Refused: if the layer is not as it may be; the text names the entry.
        Corrupt: if it is not what its digest, size or diff_id say.
        OSError: of reading or writing.
    """
    limits = limits or Limits()
    compressed = Digester(algorithm_of(blob.digest) if blob.digest else "sha256")
    tar = Digester(algorithm_of(blob.diff_id) if blob.diff_id else "sha256")

    def pieces() -> Iterator[bytes]:
        for piece in decompressed(blob.file, blob.compression, compressed):
            tar.update(piece)
            limits.check_stream(tar.size, compressed.size)
            if progress is not None:
                progress(compressed.size)
            yield piece

    with Target(target_fd, form, limits) as target, ahead(pieces()) as source:
        applier = _Applier(target, limits, index)
        applier.run(TarReader(source, limits, needs_end=blob.diff_id is None))
        for _ in source:  # the reader has refused whatever would come here
            pass
        if blob.digest is not None:
            compressed.check(blob.digest, blob.size, "the layer's blob")
        if blob.diff_id is not None:
            tar.check(blob.diff_id, None, "the layer's tar")
        implied = applier.finish()
    return Applied(
        diff_id=tar.digest(),
        tar_bytes=tar.size,
        digest=compressed.digest(),
        blob_bytes=compressed.size,
        entries=applier.entries,
        file_bytes=applier.file_bytes,
        implied=implied,
        notes=target.notes(),
    )


@dataclass(slots=True)
class _Applier:
    """One layer on its way into its directory.

    Attributes:
        mtimes: of the directories with an entry, to be set when nothing is made in them any more.
        acls: their default ACLs, which what is made in them would inherit.
        whiteouts, opaques: paths, to be marked at the end.
    """

    target: Target
    limits: Limits
    index: IndexWriter | None
    entries: int = 0
    duplicates: int = 0
    file_bytes: int = 0
    names_bytes: int = 0
    mtimes: dict[bytes, int] = field(default_factory=dict)
    acls: dict[bytes, bytes] = field(default_factory=dict)
    whiteouts: dict[bytes, None] = field(default_factory=dict)
    opaques: dict[bytes, None] = field(default_factory=dict)

    def run(self, reader: TarReader) -> None:
        limits = self.limits
        for member in reader:
            self.entries += 1
            self.names_bytes += len(member.name)
            if self.entries > limits.entries:
                raise Refused(f"the layer has more than {limits.entries} entries")
            if self.names_bytes > limits.names_bytes:
                raise Refused(f"the names in the layer have more than {limits.names_bytes} bytes")
            try:
                self._entry(member, reader)
            except OSError as err:
                raise _named(err, member) from None

    def _entry(self, member: Member, reader: TarReader) -> None:
        path = self.target.known(member.name) or paths.cleaned(member.name, self.limits)
        if b".wh." in path and self._is_marker(path):
            return
        if member.fmt == stat.S_IFDIR:
            self._directory(member, path)
            return
        if not path:
            raise Malformed("the root of the layer is no directory")
        path = self._resolved(path)
        if member.fmt == stat.S_IFCHR and member.rdev == (0, 0):
            self.whiteouts[path] = None  # what it is in the lower of an overlay
        elif not member.fmt:
            self._hard_link(member, path)
        else:
            self._make(member, path, reader)

    def _resolved(self, path: bytes) -> bytes:
        """Return the path without symlinks on the way to its last part."""
        parent, name = paths.split(path)
        return paths.join(self.target.resolve(parent), name) if parent else name

    def _is_marker(self, path: bytes) -> bool:
        """Take note of a whiteout or an opaque mark; tell whether `path` is one."""
        *above, name = path.split(b"/")
        for part in above:
            if part.startswith(names.AUFS_META_PREFIX):
                return True
            if part.startswith(names.WHITEOUT_PREFIX):
                raise Malformed(f"{shown(path)} is below a whiteout")
        if not name.startswith(names.WHITEOUT_PREFIX):
            return False
        parent = b"/".join(above)
        if name == names.OPAQUE_FILE:
            self.opaques[parent] = None
            return True
        hidden = paths.hidden_by(name, path)
        if hidden is not None:
            self.whiteouts[paths.join(parent, hidden)] = None
        return True

    def _count_duplicate(self) -> None:
        self.duplicates += 1
        if self.duplicates > self.limits.duplicates:
            raise Refused(
                f"the layer has more than {self.limits.duplicates} entries for names that it had"
            )

    def _make_way(self, path: bytes) -> None:
        """Remove what an earlier entry has made at `path`."""
        self._count_duplicate()
        for removed in self.target.remove(path):
            self.mtimes.pop(removed, None)
            self.acls.pop(removed, None)
            if self.index is not None:
                self.index.remove(removed)

    def _directory(self, member: Member, path: bytes) -> None:
        target = self.target
        path = self._resolved(path)
        is_again = path == b"" or not target.make_directory(path)
        if is_again and not target.is_directory(path):
            self._make_way(path)
            is_again = not target.make_directory(path)
        elif is_again and path not in target.implied:
            self._count_duplicate()
        target.set_directory(path, member, is_again=is_again)
        self.mtimes[path] = member.mtime_ns
        self.acls.pop(path, None)
        if ACL_DEFAULT in member.xattrs:
            self.acls[path] = member.xattrs[ACL_DEFAULT]
        self._note(member, path)

    def _hard_link(self, member: Member, path: bytes) -> None:
        other = self._resolved(paths.cleaned(member.target, self.limits))
        if other == path:
            raise Malformed(f"{shown(path)} is a hard link to itself")
        try:
            self.target.link(path, other)
        except FileExistsError:
            self._make_way(path)
            self.target.link(path, other)
        if self.index is not None:
            self.index.add(IndexEntry(path, "h", target=other))

    def _make(self, member: Member, path: bytes, reader: TarReader) -> None:
        try:
            content = self._try_make(member, path, reader)
        except FileExistsError:
            self._make_way(path)
            content = self._try_make(member, path, reader)
        self._note(member, path, content)

    def _try_make(self, member: Member, path: bytes, reader: TarReader) -> int:
        if member.fmt != stat.S_IFREG:
            self.target.make_other(path, member)
            return 0
        self.file_bytes += member.size
        fd = self.target.create(path)
        try:
            if member.extents is None:
                content = write_plain(fd, reader)
            else:
                if self.file_bytes > self.limits.total_bytes:
                    raise Refused(
                        f"the files of the layer have more than {self.limits.total_bytes} bytes"
                    )
                content = write_sparse(fd, reader, member.extents, member.size)
            self.target.finish_file(fd, member)
        finally:
            os.close(fd)
        return content

    def _note(self, member: Member, path: bytes, content: int = 0) -> None:
        if self.index is not None:
            self.index.add(
                IndexEntry(
                    path, KIND_OF[member.fmt], member.mode, member.uid, member.gid,
                    member.mtime_ns, member.size, content, member.target, member.rdev,
                    xattrs_hash(member.xattrs),
                )
            )  # fmt: skip

    # The end

    def finish(self) -> tuple[bytes, ...]:
        """Write the markers and set the times of directories; return the implied ones."""
        target = self.target
        opaque = {target.resolve(path): None for path in self.opaques}
        whiteouts = self._settle_whiteouts(opaque)
        if self.index is not None:
            for path in target.implied:
                self.index.add(IndexEntry(path, "d", mode=0o755, is_implied=True))
            for path in whiteouts:
                self.index.add(IndexEntry(path, "w"))
            for path in opaque:
                self.index.mark_opaque(path)
        for path in opaque:
            target.make_opaque(path)
        for path in whiteouts:
            target.make_whiteout(path)
        for path in target.implied:
            target.finish_directory(path, 0, None)
        for path, mtime_ns in self.mtimes.items():
            target.finish_directory(path, mtime_ns, self.acls.get(path))
        return tuple(sorted(target.implied))

    def _settle_whiteouts(self, opaque: dict[bytes, None]) -> list[bytes]:
        """Return the whiteouts that are needed; add to `opaque` the directories that have one.

        Below another whiteout, or in an opaque directory, there is nothing to hide. (A whiteout
        in the latter would even be shown by overlayfs, see overlayfs.rst.)
        """
        made: dict[bytes, None] = {}
        for wanted in sorted(self.whiteouts):  # so what is above comes first
            if _is_below(wanted, made, opaque):
                continue
            path = self._resolved(wanted)
            fmt = self.target.fmt_of(path)
            if _is_below(path, made, opaque):
                continue
            if fmt == stat.S_IFDIR:
                opaque[path] = None
            elif fmt == 0:
                made[path] = None
        return list(made)


def _is_below(path: bytes, made: dict[bytes, None], opaque: dict[bytes, None]) -> bool:
    while path:
        if path in made:
            return True
        path = paths.split(path)[0]
        if path in opaque:
            return True
    return False


def _named(err: OSError, member: Member) -> OSError:
    """Return `err` with the entry that it is about."""
    return OSError(err.errno, err.strerror, shown(member.name))
