"""Run real programs on a union, or on one of its oracles, and see that they leave the lowers alone.

UNIONFUSE_TEST_PROGRAM names what serves the mount: `unionfuse` (the default), or `overlayfs` or
`fuse-overlayfs`, on which these tests are themselves tested: what fails on all three is a mistake
in the test.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

from tests.support.mounts import fuse_overlayfs_mount, overlay_mount, union_mount

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.mounts import Layers

Identity = tuple[int, ...]


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 100,
) -> str:
    """Run a program that has to succeed, and return what it prints.

    Raises:
        AssertionError: It failed or took longer than `timeout` seconds.
    """
    line = " ".join(map(str, command))
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{line} took more than {timeout} s") from error
    printed, complaints = os.fsdecode(done.stdout), os.fsdecode(done.stderr)
    if done.returncode != 0:
        shown = f"{printed[-2000:]}\n{complaints[-2000:]}"
        raise AssertionError(f"{line} exited with {done.returncode}:\n{shown}")
    return printed


def identities(root: Path) -> dict[bytes, Identity]:
    """Map every path below `root` to what changes with any change of the file."""
    found = {}
    # fwalk, since a tree may be deeper than a path can say
    for directory, names, files, descriptor in os.fwalk(os.fsencode(root)):
        for name in (b".", *names, *files):
            stat = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            found[os.path.join(directory, name)] = (
                stat.st_ino,
                stat.st_mode,
                stat.st_nlink,
                stat.st_size,
                stat.st_ctime_ns,
            )
    return found


@contextlib.contextmanager
def served(layers: Layers, *options: str, read_only: bool = False) -> Iterator[Path]:
    """Mount `layers`, yield the mountpoint, and check in the end that no lower was touched.

    The `options` are for unionfuse.
    """
    program = os.environ.get("UNIONFUSE_TEST_PROGRAM", "unionfuse")
    before = [identities(lower) for lower in layers.lowers]
    if program == "overlayfs":
        mount = overlay_mount(layers)
    elif program == "fuse-overlayfs":
        mount = fuse_overlayfs_mount(layers)
    else:
        mount = union_mount(layers, *options, read_only=read_only)
    with mount as mnt:
        yield mnt
    for lower, old in zip(layers.lowers, before, strict=True):
        new = identities(lower)
        changed = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
        assert not changed, f"a lower layer was touched: {changed[:10]}"
