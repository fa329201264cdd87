"""Build tars for tests: well-formed ones by tarfile, and those that no writer would make."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING, Any

from unionfuse.image.layers.apply import Applied, LayerBlob, apply_layer
from unionfuse.image.layers.form import LayerForm

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.image.layers.index import IndexWriter
    from unionfuse.image.layers.limits import Limits

MTIME = 1_000_000_000


class TarBuilder:
    """A tar, entry by entry; each method returns the builder."""

    def __init__(self, fmt: int = tarfile.PAX_FORMAT) -> None:
        self._out = io.BytesIO()
        self._tar = tarfile.TarFile(
            fileobj=self._out, mode="w", format=fmt, errors="surrogateescape"
        )

    def add(self, name: str, kind: bytes, data: bytes = b"", **fields: Any) -> TarBuilder:
        info = tarfile.TarInfo(name)
        info.type = kind
        info.mtime = MTIME
        info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        info.size = len(data)
        for key, value in fields.items():
            setattr(info, key, value)
        self._tar.addfile(info, io.BytesIO(data))
        return self

    def file(self, name: str, data: bytes = b"", **fields: Any) -> TarBuilder:
        return self.add(name, tarfile.REGTYPE, data, **fields)

    def dir(self, name: str, **fields: Any) -> TarBuilder:
        return self.add(name, tarfile.DIRTYPE, **fields)

    def symlink(self, name: str, target: str, **fields: Any) -> TarBuilder:
        return self.add(name, tarfile.SYMTYPE, linkname=target, **fields)

    def link(self, name: str, target: str, **fields: Any) -> TarBuilder:
        return self.add(name, tarfile.LNKTYPE, linkname=target, **fields)

    def device(
        self, name: str, major: int, minor: int, kind: bytes = tarfile.CHRTYPE
    ) -> TarBuilder:
        return self.add(name, kind, devmajor=major, devminor=minor)

    def fifo(self, name: str) -> TarBuilder:
        return self.add(name, tarfile.FIFOTYPE)

    def bytes(self) -> bytes:
        self._tar.close()
        return self._out.getvalue()


def xattrs(**values: str) -> dict[str, str]:
    """Return PAX headers; the names have `__` for dots."""
    return {"SCHILY.xattr." + name.replace("__", "."): value for name, value in values.items()}


def apply(
    data: bytes,
    directory: Path,
    form: LayerForm | None = None,
    limits: Limits | None = None,
    index: IndexWriter | None = None,
) -> Applied:
    """Apply a tar, compressed or not, to a directory."""
    directory.mkdir(exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        form = form or LayerForm.probe(fd)
        return apply_layer(LayerBlob(io.BytesIO(data)), fd, form, limits, index)
    finally:
        os.close(fd)


def tree(directory: Path) -> dict[str, str]:
    """Return all that is in a directory, by path: type and permissions as `ls -l` has them."""
    found = {}
    for where, dirs, files in os.walk(directory):
        for name in (*dirs, *files):
            path = os.path.join(where, name)
            st = os.lstat(path)
            text = stat.filemode(st.st_mode)
            if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
                text = "whiteout"
            found[os.path.relpath(path, directory)] = text
    return dict(sorted(found.items()))
