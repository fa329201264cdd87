"""Directories of which a layer has something, and no entry: what the layers below say of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unionfuse.layer import names
from unionfuse.layer.directory import DirectoryFds, LayerDir
from unionfuse.layer.redirect import Search, not_hidden
from unionfuse.syscalls import xattr
from unionfuse.syscalls.fdpath import fd_path

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPEN_DIRS = 64


def complete_implied(
    target_fd: int, implied: Sequence[bytes], lower_fds: Sequence[int]
) -> list[bytes]:
    """Give directories the owner, mode, attributes and mtime that they have below.

    Those that no layer below shows stay as they are: root's, 0755, of 1970.

    Args:
        target_fd: of the layer.
        implied: as `apply_layer` has returned them.
        lower_fds: of the layers below, the topmost first.

    Returns:
        Those that were found.
    """
    fds = DirectoryFds(_OPEN_DIRS)
    try:
        target = LayerDir.root(0, target_fd, fds)
        roots = tuple(LayerDir.root(number, fd, fds) for number, fd in enumerate(lower_fds, 1))
        roots = not_hidden(None, roots)
        found = []
        for path in implied:
            below = _topmost(roots, path)
            if below is not None:
                _copy_attributes(below, _directory(target, path))
                found.append(path)
        return found
    finally:
        fds.close()


def _topmost(roots: tuple[LayerDir, ...], path: bytes) -> LayerDir | None:
    if not roots or not path:
        return roots[0] if roots else None
    places = Search(roots, roots, b"/" + path, names.TRUSTED).run(None)
    return LayerDir(*places[0]) if places else None


def _directory(root: LayerDir, path: bytes) -> LayerDir:
    at = root
    for name in path.split(b"/") if path else ():
        at = LayerDir(at, name)
    return at


def _copy_attributes(source: LayerDir, target: LayerDir) -> None:
    source_path, target_path = fd_path(source.fd()), fd_path(target.fd())
    st = os.stat(source_path)
    mine = os.stat(target_path)
    if (st.st_uid, st.st_gid) != (mine.st_uid, mine.st_gid):
        os.chown(target_path, st.st_uid, st.st_gid)
    os.chmod(target_path, st.st_mode & 0o7777)
    for name in xattr.names(source_path):
        if names.marker(name) is None and name != b"security.selinux":
            xattr.set_(target_path, name, xattr.get(source_path, name))
    os.utime(target_path, ns=(st.st_atime_ns, st.st_mtime_ns))
