"""A union stays the same while the kernel forgets what it knew of it.

Dropped caches make the kernel forget nodes in the midst of work. A filesystem that loses something
with them finds names missing that are there, or there that are missing; two of the peers do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests import fuzz
from tests.support.ops import Workers
from tests.support.programs import run, served
from tests.support.tree import diff, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.timeout(110)]


@contextlib.contextmanager
def forgetting(seconds: float = 0.5) -> Iterator[None]:
    """Let another process drop the page cache, dentries and inodes every `seconds`."""
    script = f"while sleep {seconds}; do echo 3 > /proc/sys/vm/drop_caches || exit; done"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.DEVNULL) as dropper:
        try:
            yield
            assert dropper.poll() is None, "the caches were not dropped to the end"
        finally:
            dropper.kill()


@dataclass
class Pair:
    """A union and a plain directory to which the same is done."""

    union: Path
    model: Path
    # name at the opening -> both descriptors
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    directories: dict[str, tuple[int, int]] = field(default_factory=dict)

    def both(self, what: str, action: Callable[[Path], object]) -> object:
        """Do it to both; both have to answer the same."""
        expected, actual = (_outcome(action, base) for base in (self.model, self.union))
        assert actual == expected, f"{what}: should be {expected!r}, is {actual!r}"
        return actual

    def open(self, name: str, flags: int) -> None:
        """Open a file or directory in both and keep it open."""
        kept = self.directories if flags & os.O_DIRECTORY else self.files
        pair = tuple(os.open(base / name, flags) for base in (self.model, self.union))
        self._close(kept.pop(name, ()))
        kept[name] = pair  # type: ignore[assignment]

    def both_open(self, what: str, fds: tuple[int, int], action: Callable[[int], object]) -> None:
        expected, actual = (_outcome(action, fd) for fd in fds)
        assert actual == expected, f"{what}: should be {expected!r}, is {actual!r}"

    def close(self) -> None:
        for kept in (self.files, self.directories):
            for pair in kept.values():
                self._close(pair)

    def _close(self, fds: tuple[int, ...]) -> None:
        for fd in fds:
            os.close(fd)


def _outcome(action: Callable[..., object], subject: object) -> object:
    try:
        return action(subject)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


DIRECTORIES, FILES = 60, 40


@pytest.fixture
def pair(layers) -> Iterator[Pair]:
    """Make some thousand files in the lowers, hard links among them, and the same as a model."""
    for number in range(DIRECTORIES):
        directory = layers.lowers[number % 2] / f"{number % 6}" / f"{number}"
        directory.mkdir(parents=True)
        for file in range(FILES):
            (directory / f"{file}").write_text(f"{number} {file}\n" * (file + 1))
        os.link(directory / "0", directory / "linked")
    model = layers.mnt.with_name("model")
    run("cp", "-a", layers.lowers[0], model)
    run("cp", "-a", f"{layers.lowers[1]}/.", model)
    with served(layers) as mnt, forgetting(0.3):
        pair = Pair(mnt, model)
        try:
            yield pair
        finally:
            pair.close()


def trees_differ(pair: Pair) -> list[str]:
    expected, actual = snapshot(pair.model, times="none"), snapshot(pair.union, times="none")
    return diff(expected, actual)


class TestStress:
    @pytest.mark.parametrize("seed", [1, 2])
    def test_random_changes_of_thousands_of_files(self, pair, seed):
        rng = random.Random(seed)
        directories = [
            str(path.relative_to(pair.model)) for path in pair.model.rglob("*") if path.is_dir()
        ]

        def name() -> str:
            file = rng.choice(["linked", f"new-{rng.randrange(20)}", f"{rng.randrange(FILES)}"])
            return f"{rng.choice(directories)}/{file}"

        for number in range(4000):
            kind, one, two = rng.choice(list(CHANGES)), name(), name()
            pair.both(f"{number} {kind} {one} {two}", CHANGES[kind](one, two, number))
            if number % 7 == 0:
                change_open_file(pair, rng, one, number)
            if number % 50 == 0:
                directory = rng.choice(directories)
                pair.open(directory, os.O_RDONLY | os.O_DIRECTORY)
                for opened, fds in list(pair.directories.items())[-5:]:
                    pair.both_open(f"{number} list {opened}", fds, lambda fd: set(os.listdir(fd)))
        assert not trees_differ(pair)

    def test_a_directory_handle_lives_on_when_its_directory_is_renamed_and_removed(self, pair):
        for base in (pair.model, pair.union):
            (base / "new").mkdir()
            for number in range(300):
                (base / "new" / f"{number}").touch()
        pair.open("new", os.O_RDONLY | os.O_DIRECTORY)
        fds = pair.directories["new"]
        for number in range(300):
            drop_caches_now(number, every=60)
            pair.both(f"{number} rename", lambda base: rename_back_and_forth(base / "new"))
            pair.both_open(f"{number} renameat", fds, partial(rename_in, number))
        pair.both_open("list", fds, lambda fd: sorted(os.listdir(fd)))
        for base in (pair.model, pair.union):
            run("rm", "-r", base / "new")
        drop_caches_now(0, every=1)
        pair.both_open("list of what was removed", fds, os.listdir)
        pair.both_open("open in what was removed", fds, lambda fd: os.stat("r-1", dir_fd=fd))

    def test_whole_trees_are_copied_and_removed(self, pair):
        for round_ in range(2):
            for base in (pair.model, pair.union):
                run("cp", "-a", base / "1", base / "copy")
                run("rm", "-r", base / f"{round_ + 2}")
                run("find", base, "-name", "*7", "-exec", "chmod", "600", "{}", "+")
                (base / "copy").rename(base / f"{round_ + 2}")
        assert not trees_differ(pair)


def rename_in(number: int, directory: int) -> None:
    os.rename(f"{number}", f"r-{number}", src_dir_fd=directory, dst_dir_fd=directory)


def rename_back_and_forth(path: Path) -> None:
    path.rename(path.with_name("other")).rename(path)


def drop_caches_now(number: int, *, every: int) -> None:
    if number % every == 0:
        with open("/proc/sys/vm/drop_caches", "w") as caches:
            caches.write("2")


def change_open_file(pair: Pair, rng: random.Random, name: str, number: int) -> None:
    """Change and read a file that was opened long ago and may have lost its name since."""
    if (pair.model / name).is_file() and len(pair.files) < 100:
        pair.open(name, os.O_RDWR)
    if not pair.files:
        return
    opened = rng.choice(list(pair.files))
    fds = pair.files[opened]
    text = f"{number} written\n".encode()
    for what, action in (
        ("pwrite", lambda fd: os.pwrite(fd, text, rng.__class__(number).randrange(100))),
        ("pread", lambda fd: os.pread(fd, 200, 0)),
        ("fstat", lambda fd: (os.fstat(fd).st_nlink, os.fstat(fd).st_size, os.fstat(fd).st_mode)),
        ("fchmod", lambda fd: os.fchmod(fd, 0o600 + number % 8)),
    ):
        pair.both_open(f"{number} {what} {opened}", fds, action)


def _write(path: Path, number: int, mode: str) -> None:
    with open(path, mode) as file:
        file.write(f"{number}\n")


def _rename(old: Path, new: Path) -> None:
    if old.is_dir() and not old.name.startswith("new-"):
        return  # of the lowers: EXDEV on a union, unlike on the model
    old.rename(new)


Change = "Callable[[str, str, int], Callable[[Path], object]]"
CHANGES: dict[str, Change] = {
    "create": lambda one, two, n: lambda base: _write(base / one, n, "x"),
    "write": lambda one, two, n: lambda base: _write(base / one, n, "w"),
    "append": lambda one, two, n: lambda base: _write(base / one, n, "a"),
    "read": lambda one, two, n: lambda base: (base / one).read_text(),
    "rename": lambda one, two, n: lambda base: _rename(base / one, base / two),
    "link": lambda one, two, n: lambda base: os.link(base / one, base / two),
    "unlink": lambda one, two, n: lambda base: os.unlink(base / one),
    "chmod": lambda one, two, n: lambda base: os.chmod(base / one, 0o400 + n % 64),
    "symlink": lambda one, two, n: lambda base: os.symlink(two, base / one),
    "mkdir": lambda one, two, n: lambda base: os.mkdir(base / one),
    "rmdir": lambda one, two, n: lambda base: os.rmdir(base / one),
    "exists": lambda one, two, n: (
        lambda base: (base / one).lstat().st_nlink if not (base / one).is_dir() else None
    ),
}


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as workers:
        yield workers


class TestDifferential:
    def test_random_operations_have_the_outcomes_that_overlayfs_gives(self, workers):
        plan = fuzz.Plan.from_seed(301, 600, check_every=150)
        with forgetting(0.2):
            difference = fuzz.compare(plan, fuzz.UNIONFUSE, fuzz.OVERLAYFS, workers)
        assert difference is None, difference.describe(plan)
