"""An upper that may be mounted: what it is on, and bringing it up to date."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from unionfuse.cli.errors import Failure
from unionfuse.fuse import table
from unionfuse.offline.holders import holder_of
from unionfuse.syscalls.syncfs import syncfs

if TYPE_CHECKING:
    from unionfuse.image.store.image import Image
    from unionfuse.image.store.store import Store

SCRATCH = "scratch"  # as docker calls the image that has nothing


def settled(upper: str) -> tuple[Path, tuple[str, ...] | None]:
    """Bring what was written under a mount of `upper` into it.

    Returns:
        Its path, and the lowers of the mount; None if it is not mounted.

    Raises:
        Failure: if it is no directory, or a mount that can not be synced uses it.
    """
    path = Path(os.path.realpath(upper))
    if not path.is_dir():
        raise Failure(f"upper {upper}: no such directory")
    for record in table.mounted():
        if record.upper == str(path):
            # Data may be in the kernel's cache of the mount alone, until it is synced.
            fd = os.open(record.mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                syncfs(fd)
            finally:
                os.close(fd)
            return path, record.lowers
    holder = holder_of(os.fsencode(path), None)
    if holder is not None:
        raise Failure(f"{holder}, which can not be synced from here: unmount it first")
    return path, None


def base_of(
    store: Store, upper: Path, base: str | None, lowers: tuple[str, ...] | None
) -> Image | None:
    """Return the image that an upper is on; None for nothing.

    Args:
        base: as the user says; None to find out.
        lowers: of the mount, if it is mounted.

    Raises:
        Failure: if it is not known.
    """
    if base == SCRATCH:
        return None
    if base is not None:
        return store.resolve(base)
    if lowers is not None:
        for image, _ in store.images():
            if tuple(map(str, _layers(image))) == lowers:
                return store.resolve(image.descriptor.digest)
    known = store.database.base(str(upper), upper.stat().st_ino)
    if known is not None:
        return store.resolve(known)
    raise Failure(f"no image is known that {upper} is on: give --base REF, or --base {SCRATCH}")


def _layers(image: Image) -> tuple[Path, ...]:
    from unionfuse.image.errors import NotFound

    try:
        return image.layers
    except NotFound:
        return ()
