"""The mount of a container: its layers under its upper, as one tree."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from unionfuse.container import processes
from unionfuse.container.errors import ContainerError
from unionfuse.fuse import mounting
from unionfuse.fuse.errors import MountError
from unionfuse.syscalls.syncfs import syncfs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from unionfuse.container.processes import Process
    from unionfuse.container.state import Container

_SECONDS = 10.0  # a daemon that is asked to end has this long


def mount(
    lowers: Sequence[Path],
    upper: Path | None,
    workdir: Path | None,
    mountpoint: Path,
    words: tuple[str, ...] = (),
) -> Process | None:
    """Mount a stack in this mount namespace; return the daemon behind it.

    Args:
        lowers: the read-only layers, the topmost first.
        upper: the writable one; None: nothing can be written.
        workdir: beside it.
        mountpoint: a directory.
        words: mount options, as `-o` of `unionfuse mount` has them.

    Raises:
        ContainerError: if that is not possible.
    """
    from unionfuse.fuse import daemon
    from unionfuse.fuse.options import MountPlan
    from unionfuse.fuse.plan import make_plan
    from unionfuse.fuse.words import parse_words

    options = parse_words(("noatime", *words))
    try:
        plan = make_plan(
            MountPlan(
                lowers=tuple(os.fsencode(lower) for lower in lowers),
                upper=None if upper is None else os.fsencode(upper),
                workdir=None if workdir is None else os.fsencode(workdir),
                mountpoint=os.fsencode(mountpoint),
                session=options.session or "auto",
                io=options.io or "auto",
                options=options,
                returns="mounted",
                lock_seconds=_SECONDS,
            )
        )
        pid = daemon.start(plan)
    except MountError as err:
        raise ContainerError(str(err)) from None
    return processes.identify(pid)


def mount_container(container: Container) -> Process | None:
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
    return mount(
        container.lowers, container.upper, container.workdir, container.merged, tuple(words)
    )


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
def mounted(
    lowers: Sequence[Path], upper: Path | None, workdir: Path | None, mountpoint: Path
) -> Iterator[Path]:
    """Have a stack mounted for the time of a `with` block."""
    daemon = mount(lowers, upper, workdir, mountpoint)
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
