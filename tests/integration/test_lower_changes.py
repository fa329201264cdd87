"""Lowers that change under a mount: what is shown is undefined, but nothing breaks or leaks."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.mounts import union_mount

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.mounts import Layers

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(60)]

SECRET = b"what lies outside of every layer"
NAMES = ("a", "b", "c", "d")
SECONDS = 4.0


def shake(lower: Path, outside: Path, rng: random.Random) -> None:
    """Put something of another kind in the place of a name, past the union."""
    path = lower / rng.choice(NAMES) / rng.choice(NAMES)
    if rng.random() < 0.3:
        path = path.parent
    elif path.parent.is_symlink():
        return
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        match rng.randrange(5):
            case 0:
                path.symlink_to(outside)
            case 1:
                path.symlink_to(outside / "secret")
            case 2:
                path.mkdir()
                (path / "secret").write_text("inside")
            case 3:
                path.write_text("inside")
            case _:
                os.rename(lower / rng.choice(NAMES), path)


def use(mnt: Path, rng: random.Random) -> bytes:
    """Do something to a name of the union, to which no link is followed; return what was read."""
    *above, name = rng.choices(NAMES, k=rng.randrange(1, 4))
    name = rng.choice((name, "secret"))
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        at = None
        for directory in (mnt, *above):
            at = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            stack.callback(os.close, at)
        match rng.randrange(6):
            case 0:
                listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
                stack.callback(os.close, listing)
                return b"\n".join(map(os.fsencode, os.listdir(listing)))
            case 1:
                os.utime(name, (0, 0), dir_fd=at, follow_symlinks=False)
            case 2:
                os.rename(name, rng.choice(NAMES), src_dir_fd=at, dst_dir_fd=at)
            case 3:
                os.unlink(name, dir_fd=at)
            case _:
                flags = os.O_NOFOLLOW | rng.choice((os.O_RDONLY, os.O_RDWR))
                fd = os.open(name, flags, dir_fd=at)
                stack.callback(os.close, fd)
                return os.read(fd, 100)
    return b""


def test_the_daemon_lives_on_and_nothing_outside_is_touched(layers: Layers, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    before = (outside / "secret").stat()
    done = threading.Event()

    def change() -> None:
        rng = random.Random(1)
        while not done.is_set():
            shake(rng.choice(layers.lowers), outside, rng)

    with union_mount(layers, "-o", "timeout=0") as mnt:
        thread = threading.Thread(target=change, daemon=True)
        thread.start()
        rng = random.Random(2)
        deadline = time.monotonic() + SECONDS
        try:
            while time.monotonic() < deadline:
                assert SECRET not in use(mnt, rng)
        finally:
            done.set()
            thread.join()
        (mnt / "still-there").write_text("yes")
        assert (layers.upper / "still-there").read_text() == "yes"
    after = (outside / "secret").stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert sorted(os.listdir(outside)) == ["secret"]
