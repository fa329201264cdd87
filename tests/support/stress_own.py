"""A subtree that one process alone changes, and a model that says what it has to be.

The lowers hold its beginning. Every change is made to the tree and to the model; both have to
answer the same, and what is read has to be what the model holds.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.model import Inode, Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from random import Random

SIZES = (0, 1, 100, 4095, 4096, 4097, 20_000, 70_000, 131_072)
DIRECTORIES, FILES = 6, 40
MOST_NAMES = 250
MOST_OPEN = 8
MOST_READ = 200_000
WEIGHTS = {
    "create": 9, "write": 8, "append": 5, "truncate": 5, "read": 8, "map_read": 3, "map_write": 5,
    "unlink": 7, "mkdir": 3, "rmdir": 2, "rename": 9, "rename_directory": 2, "link": 4,
    "symlink": 3, "chmod": 4, "set_attribute": 3, "look": 6, "listing": 3, "hold": 3, "use": 12,
    "replace": 4,
}  # fmt: skip


@dataclass
class Opened:
    """A file that stays open for reading and writing, with a name or without."""

    fd: int
    inode: Inode


def plant(lowers: Sequence[Path], name: str, rng: Random) -> None:
    """Make the beginning of a subtree: directories in all lowers, each file in one of them."""
    for number in range(DIRECTORIES):
        for lower in lowers:
            (lower / name / f"d{number}" / "deep").mkdir(parents=True, exist_ok=True)
    directories = [f"d{number}" for number in range(DIRECTORIES)] + ["d0/deep", "d1/deep"]
    for number in range(FILES):
        directory = rng.choice(lowers) / name / rng.choice(directories)
        file = directory / f"f{number}"
        file.write_bytes(rng.randbytes(rng.choice(SIZES)))
        if number % 8 == 0:
            os.link(file, directory / f"hard{number}")
        if number % 8 == 1:
            (directory / f"soft{number}").symlink_to(f"f{number}")


def model_of(lowers: Sequence[Path], name: str) -> Model:
    """Return what a union of `lowers`, no file of which hides another, shows below `name`."""
    root = Inode(stat.S_IFDIR, 0o755, 0, 0, has_lower=True)
    known: dict[tuple[int, int], Inode] = {}
    for lower in lowers:
        for directory, names, files in os.walk(os.fsencode(lower / name)):
            at = Model(root).get(os.path.relpath(directory, os.fsencode(lower / name)).strip(b"."))
            for child in names:
                at.children.setdefault(child, Inode(stat.S_IFDIR, 0o755, 0, 0, has_lower=True))
            for child in files:
                path = os.path.join(directory, child)
                status = os.lstat(path)
                inode = known.setdefault((status.st_dev, status.st_ino), _record(path, status))
                at.children[child] = inode
    return Model(root)


def _record(path: bytes, status: os.stat_result) -> Inode:
    inode = Inode(stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), 0, 0)
    inode.lower_nlink = inode.nlink = status.st_nlink
    if stat.S_ISLNK(status.st_mode):
        inode.target = os.readlink(path)
    else:
        with open(path, "rb") as file:
            inode.data = file.read()
    return inode


class OwnTree:
    """Random changes of a subtree, and the comparison with its model."""

    def __init__(self, root: Path, model: Model, rng: Random) -> None:
        self.root = os.fsencode(root)
        self.model = model
        self._rng = rng
        self._opened: list[Opened] = []
        self._kinds = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=4096)
        self.count = 0

    def step(self) -> None:
        """Make one random change or look."""
        self.count += 1
        getattr(self, "_" + self._kinds[self._rng.randrange(len(self._kinds))])()

    def close(self) -> None:
        """Close what is open: nothing is written any more."""
        while self._opened:
            os.close(self._opened.pop().fd)

    def check(self) -> None:
        """Compare the whole of the tree with the model."""
        for path, inode in self.model.walk():
            status = os.lstat(self._at(path))
            assert stat.S_IFMT(status.st_mode) == inode.fmt, f"{path!r} is of type {status.st_mode}"
            assert stat.S_IMODE(status.st_mode) == inode.mode or stat.S_ISLNK(inode.fmt), (
                f"{path!r} should have the mode {inode.mode:o}, has {status.st_mode:o}"
            )
            if inode.is_dir:
                found, wanted = set(os.listdir(self._at(path))), set(inode.children)
                assert found == wanted, f"{path!r} lists wrongly {sorted(found ^ wanted)}"
            elif inode.fmt == stat.S_IFLNK:
                assert os.readlink(self._at(path)) == inode.target, path
            else:
                with self._open(path, os.O_RDONLY) as fd:
                    for offset in range(0, len(inode.data) + 1, MOST_READ):
                        self._check_data(path, inode, fd, offset)
                    assert os.fstat(fd).st_size == len(inode.data), path
                for name, value in inode.xattrs.items():
                    assert os.getxattr(self._at(path), name) == value, path

    # Choosing

    def _at(self, path: bytes) -> bytes:
        return os.path.join(self.root, path)

    def _directory(self) -> bytes:
        return self._rng.choice([path for path, inode in self.model.walk() if inode.is_dir])

    def _new(self) -> bytes:
        name = b"n%d" % self._rng.randrange(60)
        return os.path.join(self._directory(), name)

    def _file(self) -> tuple[bytes, Inode]:
        files = [(path, inode) for path, inode in self.model.walk() if inode.fmt == stat.S_IFREG]
        if files:
            return self._rng.choice(files)
        self._make()
        return self._file()

    def _is_full(self) -> bool:
        return sum(1 for _ in self.model.walk()) > MOST_NAMES

    def _data(self) -> bytes:
        return self._rng.randbytes(self._rng.choice(SIZES))

    @contextlib.contextmanager
    def _open(self, path: bytes, flags: int) -> Iterator[int]:
        fd = os.open(self._at(path), flags, 0o644)
        try:
            yield fd
        finally:
            os.close(fd)

    def _both(self, what: str, model: Callable[[], object], tree: Callable[[], object]) -> bool:
        """Do it to the model and to the tree; tell whether it went well, which both must."""
        outcomes = []
        for action in (model, tree):
            try:
                action()
            except OSError as error:
                outcomes.append(errno.errorcode[error.errno or 0])
            else:
                outcomes.append("done")
        assert outcomes[0] == outcomes[1], f"{what}: should be {outcomes[0]}, is {outcomes[1]}"
        return outcomes[0] == "done"

    def _check_data(self, what: object, inode: Inode, fd: int, offset: int = 0) -> None:
        """Compare what is read from `offset` on with the model."""
        length = min(len(inode.data) + 1, MOST_READ)
        self._compare(what, inode, os.pread(fd, length, offset), offset, length)

    def _compare(
        self, what: object, inode: Inode, found: bytes, offset: int, length: int | None = None
    ) -> None:
        wanted = inode.data[offset:][:length]
        if found == wanted:
            return
        pairs = enumerate(zip(found, wanted, strict=False))
        at = next((n for n, (one, two) in pairs if one != two), min(len(found), len(wanted)))
        raise AssertionError(
            f"{what!r}: {len(found)} bytes for {len(wanted)} differ from byte {offset + at} on: "
            f"should be {wanted[at : at + 16]!r}, is {found[at : at + 16]!r}"
        )

    # Changing

    def _create(self) -> None:
        (self._unlink if self._is_full() else self._make)()

    def _make(self) -> None:
        path, data = self._new(), self._data()
        inode = Inode(stat.S_IFREG, 0o644, 0, 0, data=data)

        def create() -> None:
            with self._open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY) as fd:
                assert os.write(fd, data) == len(data)

        self._both(f"create {path!r}", lambda: self.model._add(path, inode), create)

    def _replace(self) -> None:
        path, inode = self._file()
        data = self._data()
        with self._open(path, os.O_WRONLY | os.O_TRUNC) as fd:
            assert os.write(fd, data) == len(data)
        inode.data = data

    def _write(self) -> None:
        path, inode = self._file()
        offset, data = self._rng.randrange(len(inode.data) + 5000), self._data()
        with self._open(path, self._rng.choice((os.O_WRONLY, os.O_RDWR))) as fd:
            assert os.pwrite(fd, data, offset) == len(data)
        if data:
            Model.write(inode, data, offset)

    def _append(self) -> None:
        path, inode = self._file()
        if len(inode.data) > 500_000:
            return
        data = self._data()
        with self._open(path, os.O_WRONLY | os.O_APPEND) as fd:
            assert os.write(fd, data) == len(data)
        inode.data += data

    def _truncate(self) -> None:
        path, inode = self._file()
        size = self._rng.choice((*SIZES, max(len(inode.data) - 1, 0)))
        os.truncate(self._at(path), size)
        Model.truncate(inode, size)

    def _read(self) -> None:
        path, inode = self._file()
        offset = self._rng.randrange(len(inode.data) + 1)
        with self._open(path, os.O_RDONLY) as fd:
            self._check_data(path, inode, fd, offset)

    def _map_read(self) -> None:
        path, inode = self._file()
        if not inode.data:
            return
        read = mmap.PROT_READ
        with self._open(path, os.O_RDONLY) as fd, mmap.mmap(fd, 0, prot=read) as mapping:
            assert len(mapping) == len(inode.data), path
            self._compare(path, inode, mapping[:], 0)

    def _map_write(self) -> None:
        path, inode = self._file()
        if not inode.data:
            return
        with self._open(path, os.O_RDWR) as fd, mmap.mmap(fd, 0) as mapping:
            for _ in range(self._rng.randrange(1, 4)):
                offset = self._rng.randrange(len(inode.data))
                data = self._rng.randbytes(min(3000, len(inode.data) - offset))
                mapping[offset : offset + len(data)] = data
                Model.write(inode, data, offset)
            if self._rng.random() < 0.3:
                mapping.flush()
            with self._open(path, os.O_RDONLY) as reader:
                self._check_data(path, inode, reader)

    def _unlink(self) -> None:
        names = [path for path, inode in self.model.walk() if not inode.is_dir]
        if names:
            path = self._rng.choice(names)
            unlink = self._doing(os.unlink, path)
            self._both(f"unlink {path!r}", lambda: self.model.unlink(path), unlink)

    def _mkdir(self) -> None:
        if self._is_full():
            self._rmdir()
            return
        path = self._new()
        self._both(
            f"mkdir {path!r}",
            lambda: self.model.mkdir(path, 0o755, (0, 0)),
            self._doing(os.mkdir, path),
        )

    def _rmdir(self) -> None:
        path = self._directory()
        empty = [at for at, inode in self.model.walk() if inode.is_dir and not inode.children]
        if empty and self._rng.random() < 0.7:
            path = self._rng.choice(empty)
        if path:
            self._both(
                f"rmdir {path!r}", lambda: self.model.rmdir(path), self._doing(os.rmdir, path)
            )

    def _symlink(self) -> None:
        if self._is_full():
            self._unlink()
            return
        path = self._new()
        self._both(
            f"symlink {path!r}",
            lambda: self.model.symlink(b"target", path, (0, 0)),
            lambda: os.symlink(b"target", self._at(path)),
        )

    def _link(self) -> None:
        (old, _), new = self._file(), self._new()
        self._both(
            f"link {old!r} {new!r}",
            lambda: self.model.link(old, new),
            self._doing(os.link, old, new),
        )

    def _rename(self) -> None:
        old = self._file()[0]
        new = self._new() if self._rng.random() < 0.6 else self._file()[0]
        self._move(old, new)

    def _rename_directory(self) -> None:
        # of those that no lower has a part in: whether others can be moved depends on the mount
        movable = [
            path for path, inode in self.model.walk() if inode.is_dir and not inode.has_lower
        ]
        if movable:
            self._move(self._rng.choice(movable), self._new())

    def _move(self, old: bytes, new: bytes) -> None:
        self._both(
            f"rename {old!r} {new!r}",
            lambda: self.model.rename(old, new),
            self._doing(os.rename, old, new),
        )

    def _doing(self, action: Callable[..., object], *paths: bytes) -> Callable[[], object]:
        return lambda: action(*map(self._at, paths))

    def _chmod(self) -> None:
        path, inode = self._file()
        inode.mode = 0o600 + self._rng.randrange(0o100)
        os.chmod(self._at(path), inode.mode)

    def _set_attribute(self) -> None:
        path, inode = self._file()
        inode.xattrs[b"user.x"] = value = self._rng.randbytes(20)
        os.setxattr(self._at(path), "user.x", value)

    # Looking

    def _look(self) -> None:
        path, inode = self._file()
        status = os.stat(self._at(path))
        assert status.st_size == len(inode.data), f"{path!r}: {status.st_size} {len(inode.data)}"
        assert stat.S_IMODE(status.st_mode) == inode.mode, f"{path!r}: {status.st_mode:o}"
        if not inode.lower_nlink:
            assert status.st_nlink == inode.nlink, f"{path!r}: {status.st_nlink} {inode.nlink}"
        missing = self._new()
        exists = missing in {found for found, _ in self.model.walk()}
        assert os.path.lexists(self._at(missing)) == exists, f"{missing!r}: exists is not {exists}"

    def _listing(self) -> None:
        path = self._directory()
        found, wanted = set(os.listdir(self._at(path))), set(self.model.get(path).children)
        assert found == wanted, f"{path!r} lists wrongly {sorted(found ^ wanted)}"

    # Files that stay open

    def _hold(self) -> None:
        if len(self._opened) >= MOST_OPEN:
            os.close(self._opened.pop(self._rng.randrange(MOST_OPEN)).fd)
        path, inode = self._file()
        self._opened.append(Opened(os.open(self._at(path), os.O_RDWR), inode))

    def _use(self) -> None:
        if not self._opened:
            self._hold()
        opened = self._rng.choice(self._opened)
        inode, what = opened.inode, "a file that is open"
        offset = self._rng.randrange(len(inode.data) + 100)
        match self._rng.randrange(5):
            case 0:
                data = self._data()
                assert os.pwrite(opened.fd, data, offset) == len(data)
                if data:
                    Model.write(inode, data, offset)
            case 1:
                os.ftruncate(opened.fd, offset)
                Model.truncate(inode, offset)
            case 2:
                os.fsync(opened.fd)
            case _:
                self._check_data(what, inode, opened.fd, offset)
                assert os.fstat(opened.fd).st_size == len(inode.data), what
