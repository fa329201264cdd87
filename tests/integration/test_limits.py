"""A union of great size is a union still: entries, layers, names, depth, bytes."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.mounts import Layers
from tests.support.programs import run, served
from tests.support.sessions import KERNEL_CACHED, KERNEL_PASSTHROUGH, PYFUSE3

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.fuse

PATH_MAX = 4096  # with the zero that ends it
GIB = 1 << 30


@pytest.mark.slow
@pytest.mark.timeout(400)
class TestManyEntries:
    COUNT = 100_000

    @pytest.mark.sessions(PYFUSE3, KERNEL_CACHED)  # takes long
    def test_a_listing_is_whole(self, layers):
        directory = layers.lowers[0] / "many"
        directory.mkdir()
        for number in range(self.COUNT):
            os.mknod(directory / f"lower-{number}", 0o100644)
        with served(layers) as mnt:
            for number in range(100):
                (mnt / "many" / f"upper-{number}").touch()
            listed = os.listdir(mnt / "many")
            assert len(listed) == self.COUNT + 100
            assert len(set(listed)) == len(listed)
            assert run("sh", "-c", "ls -f | wc -l", cwd=mnt / "many") == f"{self.COUNT + 102}\n"

    @pytest.mark.sessions(PYFUSE3, KERNEL_PASSTHROUGH)  # takes long
    def test_what_is_unlinked_while_it_is_listed_is_each_seen_once(self, layers):
        directory = layers.lowers[0] / "many"
        directory.mkdir()
        count = self.COUNT // 4
        for number in range(count):
            os.mknod(directory / f"{number:06}", 0o100644)
        with served(layers) as mnt:
            seen = []
            with os.scandir(mnt / "many") as entries:
                for entry in entries:
                    seen.append(entry.name)
                    if int(entry.name) % 4 == 0:
                        os.unlink(entry.path)
                    if int(entry.name) % 1000 == 1:
                        (mnt / "many" / f"new-{entry.name}").mkdir()
                        (mnt / "many" / f"new-{entry.name}").rmdir()
            assert sorted(seen) == [f"{number:06}" for number in range(count)]
            kept = [f"{number:06}" for number in range(count) if number % 4]
            assert sorted(os.listdir(mnt / "many")) == kept
            run("rm", "-r", mnt / "many", timeout=300)
            assert os.listdir(mnt) == []


class TestManyLayers:
    COUNT = 130

    def test_the_topmost_of_130_layers_wins(self, tmp_path):
        layers = Layers.create(tmp_path, self.COUNT)
        for number, lower in enumerate(layers.lowers):
            (lower / "merged" / "deep").mkdir(parents=True)
            (lower / "merged" / "deep" / "same").write_text(f"{number}\n")
            (lower / "merged" / "deep" / f"own-{number}").write_text(f"{number}\n")
            (lower / f"directory-{number}").mkdir()
        with served(layers) as mnt:
            deep = mnt / "merged" / "deep"
            assert len(os.listdir(deep)) == self.COUNT + 1
            assert (deep / "same").read_text() == "0\n"
            for number in range(self.COUNT):
                assert (deep / f"own-{number}").read_text() == f"{number}\n"
            (deep / "same").unlink()
            (deep / f"own-{self.COUNT - 1}").write_text("changed\n")
            assert not (deep / "same").exists()
        with served(layers) as mnt:
            deep = mnt / "merged" / "deep"
            assert len(os.listdir(deep)) == self.COUNT
            assert (deep / f"own-{self.COUNT - 1}").read_text() == "changed\n"


NAMES = {
    "255 bytes": b"n" * 255,
    "255 bytes of UTF-8": "\u00fc".encode() * 127 + b"n",
    "no UTF-8": b"latin-1 \xe9\xff\xfe",
    "every byte but two": bytes(byte for byte in range(1, 256) if byte != ord("/")),
    "two lines": b"a line\nand another",
    "spaces at both ends": b" leading and trailing ",
    "an option": b"-n",
    "what separates options": rb"back\slash:colon,comma",
    "dots": b"...",
}


class TestNames:
    @pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
    def test_any_name_can_be_used(self, layers, name):
        lower, mnt = os.fsencode(layers.lowers[0]), os.fsencode(layers.mnt)
        inside = os.path.join(mnt, b"directory", name)
        os.mkdir(os.path.join(lower, b"directory"))
        with open(os.path.join(lower, b"directory", name), "wb") as file:
            file.write(b"lower")
        with served(layers):
            assert os.listdir(os.path.dirname(inside)) == [name]
            with open(inside, "r+b") as file:
                assert file.read() == b"lower"
                file.write(b" and upper")
            os.rename(inside, os.path.join(mnt, name))
            assert os.listdir(os.path.dirname(inside)) == []
            os.symlink(name, inside)
            assert os.readlink(inside) == name
        with served(layers):
            assert sorted(os.listdir(mnt)) == sorted([b"directory", name])
            with open(os.path.join(mnt, name), "rb") as file:
                assert file.read() == b"lower and upper"
            os.unlink(os.path.join(mnt, name))
            os.unlink(inside)
            assert os.listdir(mnt) == [b"directory"]

    def test_a_name_of_256_bytes_is_too_long(self, layers):
        (layers.lowers[0] / "file").touch()
        with served(layers) as mnt:
            long = mnt / ("n" * 256)
            for operation in (
                lambda: os.stat(long),
                lambda: os.mkdir(long),
                lambda: os.mknod(long),
                lambda: os.symlink("x", long),
                lambda: os.link(mnt / "file", long),
                lambda: os.rename(mnt / "file", long),
                lambda: os.unlink(long),
            ):
                with pytest.raises(OSError, match="name") as caught:
                    operation()
                assert caught.value.errno == errno.ENAMETOOLONG


class TestDepth:
    NAME = "d" * 99

    def make_deep(self, root: Path, depth: int) -> None:
        """Make a chain of directories with a file at its end, deeper than any path can say."""
        directory = os.open(root, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(self.NAME, dir_fd=directory)
            below = os.open(self.NAME, os.O_RDONLY, dir_fd=directory)
            os.close(directory)
            directory = below
        with open(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=directory), "w") as file:
            file.write("deep\n")
        os.close(directory)

    def test_the_longest_path_of_the_union_works_where_that_of_the_layer_is_longer(self, tmp_path):
        # in the layers the same file has a path that no system call takes
        made = Layers.create(tmp_path / ("l" * 200), 1)
        layers = replace(made, mnt=tmp_path / "m")
        layers.mnt.mkdir()
        depth = (PATH_MAX - 1 - len(os.fsencode(layers.mnt))) // 100
        self.make_deep(layers.lowers[0], depth - 1)
        directory = layers.mnt.joinpath(*[self.NAME] * (depth - 1))
        fill = PATH_MAX - 1 - len(os.fsencode(directory)) - 1
        longest = os.fspath(directory / ("f" * min(fill, 255)))
        assert PATH_MAX - 120 < len(longest) < PATH_MAX
        with served(layers):
            file = directory / "file"
            assert file.read_text() == "deep\n"
            file.write_text("changed\n")
            assert file.read_text() == "changed\n"
            with open(longest, "x") as created:
                created.write("new\n")
            assert os.stat(longest).st_size == 4
            os.unlink(file)
            assert os.listdir(directory) == [os.path.basename(longest)]
        with served(layers):
            assert os.listdir(directory) == [os.path.basename(longest)]
            run("rm", "-r", layers.mnt / self.NAME)
            assert os.listdir(layers.mnt) == []

    def test_a_tree_deeper_than_any_path_is_walked_and_removed(self, layers):
        depth = 80  # 8,000 bytes
        self.make_deep(layers.lowers[0], depth)
        with served(layers) as mnt:
            found = run("find", ".", "-printf", "%d %f\n", cwd=mnt).splitlines()
            assert found[-1] == f"{depth + 1} file"
            self.make_deep_upper_change(mnt, depth)
            run("rm", "-r", mnt / self.NAME)
            assert os.listdir(mnt) == []

    def make_deep_upper_change(self, root: Path, depth: int) -> None:
        """Change the mode of the file at the end of the chain, which copies up every directory."""
        directory = os.open(root, os.O_RDONLY)
        for _ in range(depth):
            below = os.open(self.NAME, os.O_RDONLY, dir_fd=directory)
            os.close(directory)
            directory = below
        os.chmod("file", 0o640, dir_fd=directory)
        assert os.stat("file", dir_fd=directory).st_mode == 0o100640
        os.close(directory)


class TestSparseFiles:
    SIZE = 20 * GIB
    ALLOWED = 4 << 20  # a copy may fill a chunk around the data

    def test_a_file_of_20_gib_of_holes_is_copied_up_as_holes(self, layers):
        lower = layers.lowers[0] / "sparse"
        with open(lower, "wb") as file:
            file.truncate(self.SIZE)
            file.seek(self.SIZE // 2)
            file.write(b"middle")
        with served(layers) as mnt:
            began = time.monotonic()
            with open(mnt / "sparse", "r+b") as file:
                file.seek(self.SIZE)
                file.write(b"end")
                file.seek(self.SIZE // 2)
                assert file.read(7) == b"middle\0"
                file.seek(self.SIZE - 3)
                assert file.read() == b"\0\0\0end"
            # reading through the holes takes ten times as long, even from memory
            assert time.monotonic() - began < 10
            assert (mnt / "sparse").stat().st_size == self.SIZE + 3
            assert (mnt / "sparse").stat().st_blocks * 512 < self.ALLOWED
        copy = (layers.upper / "sparse").stat()
        assert copy.st_size == self.SIZE + 3
        assert copy.st_blocks * 512 < self.ALLOWED

    def test_a_new_file_is_extended_to_20_gib_without_taking_them(self, layers):
        with served(layers) as mnt:
            with open(mnt / "sparse", "xb") as file:
                file.truncate(self.SIZE)
                os.pwrite(file.fileno(), b"end", self.SIZE)
                assert os.fstat(file.fileno()).st_size == self.SIZE + 3
            stat = (mnt / "sparse").stat()
            assert stat.st_size == self.SIZE + 3
            assert stat.st_blocks * 512 < self.ALLOWED
            os.truncate(mnt / "sparse", 5)
            assert (mnt / "sparse").read_bytes() == bytes(5)
