"""The three systems that write uppers, and random work to let them write."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.support import tree
from tests.support.mounts import fuse_overlayfs_mount, overlay_mount, union_mount
from tests.support.ops import Generator

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.support.mounts import Layers
    from tests.support.ops import Op, Workers

# fuse-overlayfs 1.10 dies of names that are too long for a whiteout of its own, `.wh.NAME`, and
# shows for a hard link another file's data, or hangs; some other operations it does not know.
_LONG = b"n" * 252
_ESCAPED = "trusted.overlay.foo"  # is kept as another name, which fuse-overlayfs hangs in listing
PLAIN = frozenset({
    "append", "chmod", "chown", "create", "listdir", "mkdir", "overwrite", "read", "rename",
    "rmdir", "setxattr", "symlink", "truncate", "unlink", "utimens", "write",
})  # fmt: skip


@dataclass(frozen=True)
class Writer:
    """A system, and the operations that it stands.

    Attributes:
        mount: mounts layers for the time of a `with` block.
        is_plain: whether it gets plain operations of root alone, and no hard links.
        renames_directories: whether directories of lowers can be renamed.
        reads_user: whether it reads `user.overlay.*`, and `trusted.overlay.*` not.
    """

    mount: Callable[[Layers], AbstractContextManager[Path]]
    is_plain: bool = False
    renames_directories: bool = False
    reads_user: bool = False


def _union(layers: Layers, options: str) -> AbstractContextManager[Path]:
    return union_mount(layers, "-o", options)


WRITERS = {
    "unionfuse": Writer(
        partial(_union, options="metacopy=on,redirect_dir=on"), renames_directories=True
    ),
    "unionfuse-plain": Writer(partial(_union, options="metacopy=off,redirect_dir=off")),
    "overlayfs": Writer(overlay_mount, renames_directories=True),
    "overlayfs-nfs": Writer(
        partial(overlay_mount, options="index=on,nfs_export=on,metacopy=off,redirect_dir=on"),
        renames_directories=True,
    ),
    "overlayfs-plain": Writer(
        partial(overlay_mount, options="index=off,redirect_dir=off,metacopy=off")
    ),
    "overlayfs-userxattr": Writer(partial(overlay_mount, options="userxattr"), reads_user=True),
    "fuse-overlayfs": Writer(fuse_overlayfs_mount, is_plain=True),
}


def build(writer: Writer, layers: Layers, seed: int) -> dict[bytes, str]:
    """Fill the lowers, in the words of the system; return what they show."""
    visible = tree.build_layers(layers.lowers, layers.upper, seed)
    for lower in map(os.fsencode, layers.lowers):
        for directory, _, files in os.walk(lower):
            if writer.reads_user and "trusted.overlay.opaque" in os.listxattr(directory):
                os.removexattr(directory, tree.OPAQUE)
                os.setxattr(directory, b"user.overlay.opaque", b"y")
            paths = [os.path.join(directory, name) for name in files]
            for path in paths if writer.is_plain else ():
                if os.lstat(path).st_nlink > 1:
                    os.unlink(path)
    return visible


def operations(writer: Writer, seed: int, known: dict[bytes, str], count: int) -> list[Op]:
    """Draw random operations that the system stands."""
    ops = Generator(seed, known).draw(count)
    if not writer.is_plain:
        return ops
    return [
        op._replace(user="root")
        for op in ops
        if op.kind in PLAIN
        and not (op.kind == "rename" and op.args[2])
        and not any(isinstance(path, bytes) and _LONG in path for path in op.args)
        and _ESCAPED not in op.args
    ]


def run(layers: Layers, ops: list[Op], workers: Workers) -> None:
    """Run operations on the mounted union, and close what they leave open."""
    for op in ops:
        workers.run(bytes(layers.mnt), op)
    workers.close_files(bytes(layers.mnt))


def shown(layers: Layers, workers: Workers, **options: object) -> dict[bytes, tree.Record]:
    """Record the tree that the mount shows."""
    found: dict[bytes, tree.Record] = workers.call(
        tree.snapshot, layers.mnt, entry_inos=False, **options
    )
    return found


def build_few(layers: Layers) -> None:
    """Fill the lowers with what `change_few` works on: too little for fuse-overlayfs to mix up.

    Random trees it lists with names that it does not find, by what inode numbers there are.
    """
    for lower in layers.lowers:
        for name in ("dir/sub/file", f"dir/of-{lower.name}", "gone/file", "replaced/file", "kept"):
            (lower / name).parent.mkdir(parents=True, exist_ok=True)
            (lower / name).write_text(f"{name} of {lower.name}")


def change_few(mnt: Path) -> None:
    """Make, change, replace and remove files and directories of the union there."""
    (mnt / "dir/sub/file").write_text("changed")
    (mnt / "dir/new").write_text("new")
    (mnt / "kept").chmod(0o600)
    for name in ("gone", "replaced"):
        (mnt / name / "file").unlink()
        (mnt / name).rmdir()
    (mnt / "replaced").mkdir()
    (mnt / "replaced/other").write_text("other")
    (mnt / "dir/new").rename(mnt / "moved")
    (mnt / "dir/of-lower1").unlink()
