"""Look into a container from outside: its tree, whether it runs or not, and what it has changed."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from unionfuse.container import execute, namespaces, rootfs, users
from unionfuse.container.finish import recover
from unionfuse.container.state import RUNNING
from unionfuse.offline.layers import opened
from unionfuse.syscalls import mount as sys_mount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unionfuse.container.options import Bind
    from unionfuse.container.state import Container, Containers
    from unionfuse.layer.stack import LayerStack


@contextlib.contextmanager
def tree(containers: Containers, container: Container) -> Iterator[Path]:
    """Yield where the container's tree is mounted, in namespaces that this process enters.

    Of one that runs it is its own mount; else there is one for the time of the `with` block, and
    it can not be started meanwhile. Volumes show in it, /proc and what is like it do not.

    Raises:
        ContainerError: if it can not be mounted.
    """
    if recover(containers, container).status == RUNNING:
        execute.join(containers, container)
        namespaces.leave_mounts()
        with _volumes_shown(container):
            yield container.merged
        return
    namespaces.enter()
    with container.lock():
        daemon = rootfs.mount_container(container)
        try:
            with _volumes_shown(container):
                yield container.merged
        finally:
            rootfs.unmount(container.merged, daemon)


@contextlib.contextmanager
def _volumes_shown(container: Container) -> Iterator[None]:
    """Mount what the user and the image put on the tree, in this process's own mounts."""
    shown: list[bytes] = []
    record = container.record
    try:
        for bind in sorted((*record.volumes, *record.options.binds), key=lambda b: b.target):
            # a place that the container has never had, or a source that is gone, shows nothing
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                shown.append(_show(container.merged, bind))
        yield
    finally:
        for path in reversed(shown):
            with contextlib.suppress(OSError):
                sys_mount.umount2(path, sys_mount.MNT_DETACH)


def _show(root: Path, bind: Bind) -> bytes:
    """Mount `bind` where the container has it; return where that is."""
    fd = users.open_below(root, bind.target)
    try:
        target = os.readlink(os.fsencode(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
    flags = sys_mount.MS_BIND | sys_mount.MS_REC
    sys_mount.mount(os.fsencode(bind.source), target, b"", flags, b"")
    if bind.read_only:
        sys_mount.make_read_only(target)
    return target


@contextlib.contextmanager
def settled(containers: Containers, container: Container) -> Iterator[None]:
    """Have all that the container has written in its upper, and be able to read that.

    Of one that runs, it is what was written until now.
    """
    if recover(containers, container).status == RUNNING:
        execute.join(containers, container)
        rootfs.sync(container.merged)
        yield
        return
    namespaces.enter_users()
    with container.lock():
        yield


@contextlib.contextmanager
def layers(container: Container) -> Iterator[LayerStack]:
    """Open the layers of a container, for what works without a mount.

    Preconditions:
        `settled`.
    """
    lowers = [os.fsencode(lower) for lower in container.lowers]
    with opened(os.fsencode(container.upper), lowers) as stack:
        yield stack


def written_size(container: Container) -> int:
    """Return the bytes of the files that the container has written or copied up.

    Preconditions:
        The process may read files of all ids (`namespaces.enter_users`).
    """
    seen: set[int] = set()
    total = 0
    for directory, _, files in os.walk(container.upper):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                st = os.lstat(os.path.join(directory, name))
                if stat.S_ISREG(st.st_mode) and st.st_ino not in seen:
                    seen.add(st.st_ino)
                    total += st.st_size
    return total
