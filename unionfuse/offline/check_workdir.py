"""Check a workdir: what a crash left there, and the entries of the index.

The rules of the index are those of ovl_verify_index and ovl_indexdir_cleanup (fs/overlayfs/namei.c,
readdir.c).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from unionfuse.layer import handle, names
from unionfuse.layer.directory import LayerDir
from unionfuse.offline import mending
from unionfuse.offline.entries import Entry, entries_of
from unionfuse.offline.findings import Finding, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.offline.origins import Origins

_WORK, _INDEX, _INCOMPAT = b"work", b"index", b"incompat"
_TEMPORARY = b"#"
_NLINK = re.compile(rb"([UL])([+-]\d+)\Z")


class WorkdirCheck:
    """One reading of a workdir."""

    def __init__(
        self, workdir: LayerDir, own: bytes, origins: Origins | None, *, is_in_use: bool
    ) -> None:
        """Check `workdir`, of an upper that was written in the namespace `own`.

        What lies in one that is in use is no leftover, and is not looked at.
        """
        self._workdir = workdir
        self._own = own
        self._origins = origins
        self._is_in_use = is_in_use

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong.

        Raises:
            OSError: EACCES too, for the workdir of a mount of root's.
        """
        directories = {entry.name for entry in entries_of(self._workdir) if entry.is_dir}
        if _WORK in directories and not self._is_in_use:
            yield from self._work(LayerDir(self._workdir, _WORK))
        if _INDEX in directories:
            where = LayerDir(self._workdir, _INDEX)
            for entry in entries_of(where):
                yield from self._index_entry(where, entry)

    def _work(self, where: LayerDir) -> Iterator[Finding]:
        for entry in entries_of(where):
            path = _WORK + b"/" + entry.name
            if entry.name == _INCOMPAT and entry.is_dir:
                yield from self._incompatible(LayerDir(where, _INCOMPAT), path)
            elif not entry.is_char_whiteout:  # overlayfs keeps the inode of its whiteouts there
                detail = f"a {entry.what} that was being prepared"
                mend = mending.tree_removal(where, entry.name)
                yield Finding("workdir", path, Kind.LEFTOVER, detail, mend)

    def _incompatible(self, where: LayerDir, path: bytes) -> Iterator[Finding]:
        for entry in entries_of(where):
            detail = (
                "left by a mount that did not wait for the disk: you alone know whether the "
                "machine has failed since"
            )
            yield Finding("workdir", path + b"/" + entry.name, Kind.INCOMPATIBLE, detail)

    def _index_entry(self, where: LayerDir, entry: Entry) -> Iterator[Finding]:
        path = _INDEX + b"/" + entry.name
        if entry.name.startswith(_TEMPORARY):
            if not self._is_in_use and not entry.is_char_whiteout:  # see _work
                mend = mending.tree_removal(where, entry.name)
                yield Finding("workdir", path, Kind.LEFTOVER, "an entry not finished", mend)
            return
        origin = _origin_of(entry.name)
        if origin is None:
            detail = "its name is no file handle"
            yield Finding("workdir", path, Kind.INDEX_MALFORMED, detail)
        elif entry.is_char_whiteout:
            return  # nfs_export=on: the handle is stale
        elif entry.is_dir:
            yield from self._directory_entry(entry, path)
        else:
            yield from self._file_entry(where, entry, path, origin)

    def _directory_entry(self, entry: Entry, path: bytes) -> Iterator[Finding]:
        upper = entry.marks.get(self._own + b"upper")
        if not upper or handle.is_malformed(upper):
            detail = "a directory that does not say which one of the upper it is for"
            yield Finding("workdir", path, Kind.INDEX_MALFORMED, detail)

    def _file_entry(
        self, where: LayerDir, entry: Entry, path: bytes, origin: bytes
    ) -> Iterator[Finding]:
        own = entry.marks.get(self._own + names.ORIGIN)
        if own is not None and own != origin:
            detail = "its origin is not the one of its name"
            yield Finding("workdir", path, Kind.INDEX_MISMATCH, detail)
            return
        if self._origins is not None and self._origins.is_stale(origin):
            detail = "the file that it is a copy of is in no lower any more"
            yield Finding("workdir", path, Kind.ORIGIN_STALE, detail)
        yield from self._nlink(where, entry, path)

    def _nlink(self, where: LayerDir, entry: Entry, path: bytes) -> Iterator[Finding]:
        value = entry.marks.get(self._own + names.NLINK)
        match = None if value is None else _NLINK.match(value)
        if match is None:
            detail = "no count of links" if value is None else "its count of links makes no sense"
            yield Finding("workdir", path, Kind.INDEX_NLINK, detail)
            return
        if match[1] != b"U":
            return  # relative to a lower that may have changed
        in_upper = entry.st.st_nlink - 1  # the entry is one
        count = entry.st.st_nlink + int(match[2])
        if count == 0 and in_upper == 0:
            detail = "no name leads to it any more"
            mend = mending.removal(where, entry.name, "the entry")
            yield Finding("workdir", path, Kind.INDEX_ORPHAN, detail, mend)
        elif count < in_upper or count <= 0:
            detail = f"counts {count} names, and the upper alone has {in_upper}"
            yield Finding("workdir", path, Kind.INDEX_NLINK, detail)


def _origin_of(name: bytes) -> bytes | None:
    """Return the origin that the name of an entry is; None if it is none."""
    try:
        value = bytes.fromhex(name.decode("ascii"))
    except ValueError:
        return None
    return value if value and not handle.is_malformed(value) else None
