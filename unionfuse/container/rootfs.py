"""The mount of a container: its layers under its upper, as one tree."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from unionfuse.container import processes
from unionfuse.container.errors import ContainerError
from unionfuse.container.mounter import serve
from unionfuse.fuse import mounting
from unionfuse.fuse.errors import MountError
from unionfuse.record import record
from unionfuse.syscalls.syncfs import syncfs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unionfuse.container.mounter import Mounter, Request
    from unionfuse.container.processes import Process
    from unionfuse.container.state import Container

_SECONDS = 10.0  # a daemon that is asked to end has this long


@record
class Layers:
    """A stack of directories.

    Attributes:
        lowers: the read-only ones, the topmost first.
        upper: the writable one; None: nothing can be written.
        workdir: beside it.
    """

    lowers: tuple[Path, ...]
    upper: Path | None = None
    workdir: Path | None = None


def mount(
    layers: Layers,
    mountpoint: Path,
    words: tuple[str, ...] = (),
    ready: Mounter | None = None,
    pid_file: Path | None = None,
) -> Process | None:
    """Mount a stack in this mount namespace; return the daemon behind it.

    Args:
        layers: what to unite.
        mountpoint: a directory.
        words: mount options, as `-o` of `unionfuse mount` has them.
        ready: what has got ready for it, if anything has.
        pid_file: gets the daemon's pid, even if this process is killed.

    Raises:
        ContainerError: if that is not possible.
    """
    request: Request = (
        tuple(os.fsencode(lower) for lower in layers.lowers),
        None if layers.upper is None else os.fsencode(layers.upper),
        None if layers.workdir is None else os.fsencode(layers.workdir),
        os.fsencode(mountpoint),
        ("noatime", *words),
        None if pid_file is None else os.fsencode(pid_file),
    )
    return processes.identify(serve(request) if ready is None else ready.mount(request))


def mount_container(container: Container, ready: Mounter | None = None) -> Process | None:
    """Mount the layers of a container where it has its root filesystem.

    Raises:
        ContainerError: if that is not possible.
    """
    record = container.record
    words: list[str] = []
    if record.options.remove:
        words.append("fsync=0")  # nobody will look for it after a power failure
    if record.options.io != "auto":
        words.append(f"io={record.options.io}")
    if record.override:
        words += ["xattr_permissions=2", "noacl"]
    layers = Layers(tuple(container.lowers), container.upper, container.workdir)
    return mount(layers, container.merged, tuple(words), ready, container.pid_files.daemon)


def unmount(mountpoint: Path, daemon: Process | None) -> None:
    """Unmount, and wait until everything is written; who still uses the mount loses it.

    Raises:
        ContainerError: if the daemon does not end.
    """
    try:
        mounting.unmount(os.fsencode(mountpoint))
    except MountError:  # in use, or dead
        with contextlib.suppress(MountError):
            mounting.unmount(os.fsencode(mountpoint), lazy=True)
    if not processes.wait(daemon, _SECONDS):
        processes.end(daemon, _SECONDS)
        if processes.is_alive(daemon):
            raise ContainerError(f"the daemon of {mountpoint} does not end")


@contextlib.contextmanager
def mounted(layers: Layers, mountpoint: Path) -> Iterator[Path]:
    """Have a stack mounted for the time of a `with` block."""
    daemon = mount(layers, mountpoint)
    try:
        yield mountpoint
    finally:
        unmount(mountpoint, daemon)


def sync(mountpoint: Path) -> None:
    """Have everything that was written to a mount put into its upper."""
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)
