"""Lowers on a mount that maps ids by itself (mount_setattr(2), MOUNT_ATTR_IDMAP).

For a container of root's with a user namespace, containers/storage mounts its layers with their ids
mapped and asks the mount program to map them too. Mapped twice they belong to nobody. So the layers
are taken from where they are not mapped, and mapped once: by us, the upper with them.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from unionfuse.fuse.mountinfo import Mount, mounts


class _Place(NamedTuple):
    """A directory as one of the mounts that show it has it."""

    mount: Mount
    rest: bytes


def original(path: bytes) -> bytes:
    """Return where `path`, absolute and without symlinks, is shown with the ids of the disk.

    Where nothing shows it so, that is `path` itself.
    """
    listed = mounts()
    shown = _place(path, listed)
    if shown is None or b"idmapped" not in shown.mount.options:
        return path
    on_disk = _joined(shown.mount.root, shown.rest)
    for mount in reversed(listed):
        if mount.device != shown.mount.device or b"idmapped" in mount.options:
            continue
        rest = _below(on_disk, mount.root)
        if rest is None:
            continue
        candidate = _joined(mount.mountpoint, rest)
        if _is_same(candidate, path):  # and not hidden by another mount
            return candidate
    return path


def _place(path: bytes, listed: list[Mount]) -> _Place | None:
    """Return the mount that `path` is on: the last one of those nearest to it."""
    found: _Place | None = None
    for mount in listed:
        rest = _below(path, mount.mountpoint)
        if rest is not None and (found is None or len(rest) <= len(found.rest)):
            found = _Place(mount, rest)
    return found


def _below(path: bytes, directory: bytes) -> bytes | None:
    """Return `path` relative to `directory`, None if it is not there."""
    base = directory.rstrip(b"/")
    if path in (directory, base):
        return b""
    return path[len(base) + 1 :] if path.startswith(base + b"/") else None


def _joined(directory: bytes, rest: bytes) -> bytes:
    return os.path.join(directory, rest) if rest else directory


def _is_same(one: bytes, other: bytes) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
