"""One file under random operations, and what it has to hold: a bytearray.

Each operation draws what it does from the random numbers and the model alone, so a seed does the
same on every filesystem. What it reads has to be what the model has; in between the whole is
compared, by every way to read it.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.fsx_calls import MODES, PAGE, Calls, data_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from random import Random

DIRECTORIES = ("one", "two")
NAME, OTHER = "one/file", "one/other"
MAX_SIZE = 4 << 20
MOST_FILES, MOST_MAPS, MOST_NAMES = 5, 3, 4
N_LAST = 12  # operations that a failure shows
KEPT = 120  # characters of one of them


class Difference(AssertionError):
    """The file is not what it has to be."""


@dataclass(frozen=True)
class Terms:
    """What a filesystem carries, and what readers see that were there before the copy-up."""

    modes: frozenset[int]  # of fallocate
    direct: bool  # O_DIRECT
    keeps_old: bool  # who has a lower file open for reading goes on reading that
    changes_owner: bool


@dataclass
class Opened:
    """A descriptor of the file."""

    fd: int
    flags: int

    @property
    def reads(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def writes(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def appends(self) -> bool:
        return bool(self.flags & os.O_APPEND)

    @property
    def is_direct(self) -> bool:
        return bool(self.flags & os.O_DIRECT)


class TestedFile:
    """A file, its descriptors and mappings, and the model of it."""

    __test__ = False  # no class of tests, for all its name

    def __init__(self, rng: Random, calls: Calls, terms: Terms, content: bytes) -> None:
        """Test NAME, which has `content`; OTHER has the same, and keeps it."""
        self._rng, self._calls, self._terms = rng, calls, terms
        self._mnt: Path | None = None
        self.data = bytearray(content)
        self.names = {NAME}
        self.has_own_data = False  # in the upper, for all that is known here
        self._other = content
        self._files: list[Opened] = []
        self._maps: list[tuple[mmap.mmap, bool]] = []
        self._serial = 0
        self._times = 10**18
        self.count = 0
        self.last: deque[str] = deque(maxlen=N_LAST)
        self._with_names: dict[Callable[[], str], int] = {
            self._open: 8, self._truncating_open: 1, self._truncate_name: 4, self._chmod: 2,
            self._chown: 1, self._utime: 2, self._link: 2, self._rename: 2, self._unlink: 1,
        }  # fmt: skip
        self._with_files: dict[Callable[[], str], int] = {
            self._read: 20, self._write: 20, self._append: 6, self._truncate_file: 6,
            self._close: 6, self._map: 5, self._map_read: 8, self._map_write: 10, self._unmap: 3,
            self._fallocate: 10, self._copy_within: 5, self._copy_from_other: 4, self._seek: 5,
            self._sync: 4, self._forget: 3, self._whole: 1,
        }  # fmt: skip

    # --- Its life ---------------------------------------------------------------------------------

    def mounted(self, mnt: Path) -> None:
        """Go on below `mnt`."""
        self._mnt = mnt

    def close(self) -> None:
        """Let go of everything that is open."""
        while self._maps:
            self._maps.pop()[0].close()
        while self._files:
            os.close(self._files.pop().fd)

    def step(self) -> None:
        """Do one operation and see whether it did what it has to.

        Raises:
            Difference: It did not.
        """
        kinds = dict(self._with_files)
        if self.names:
            kinds |= self._with_names
        [operation] = self._rng.choices(list(kinds), list(kinds.values()))
        name = operation.__name__.lstrip("_")
        self.count += 1
        self.last.append(f"{name} ...")
        try:
            self.last[-1] = f"{name} {operation()}"[:KEPT]
            self._check_size()
        except OSError as error:
            raise Difference(f"{self.last[-1]} failed: {error}") from error

    def lose_its_names(self) -> None:
        """Remove every name; what is open stays."""
        if not self._files:
            self._open()
        for name in sorted(self.names):
            os.unlink(self._path(name))
        self.names.clear()
        self.last.append("every name is removed")

    def check(self) -> None:
        """Compare the whole file by each of its names, and its other attributes."""
        for name in sorted(self.names):
            found = self._path(name).read_bytes()
            self._compare(found, 0, len(self.data), f"{name}, read whole")
        assert self._mnt is not None
        listed = {
            f"{directory}/{name}"
            for directory in DIRECTORIES
            for name in os.listdir(self._mnt / directory)
        }
        self._is(listed - {OTHER}, self.names, "the names")
        self._is((self._mnt / OTHER).read_bytes() == self._other, True, "the other file is as was")

    # --- Names ------------------------------------------------------------------------------------

    def _open(self) -> str:
        if len(self._files) >= MOST_FILES:
            return f"is too much; {self._close()}"
        self._add(self._flags())
        return self._say(self._files[-1])

    def _flags(self) -> int:
        flags = self._rng.choice((os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_WRONLY))
        if flags != os.O_RDONLY and self._rng.random() < 0.25:
            flags |= os.O_APPEND
        elif self._terms.direct and self._rng.random() < 0.2:
            flags |= os.O_DIRECT
        return flags

    def _add(self, flags: int) -> None:
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            self._takes_data()
        path = self._path(self._rng.choice(sorted(self.names)))
        self._files.append(Opened(os.open(path, flags), flags & ~os.O_TRUNC))

    def _truncating_open(self) -> str:
        if len(self._files) >= MOST_FILES:
            self._close()
        self._add(self._rng.choice((os.O_RDWR, os.O_WRONLY)) | os.O_TRUNC)
        del self.data[:]
        return self._say(self._files[-1])

    def _truncate_name(self) -> str:
        size = self._new_size()
        self._takes_data()
        self._calls.truncate(self._path(self._rng.choice(sorted(self.names))), size)
        self._resize(size)
        return f"to {size}"

    def _chmod(self) -> str:
        mode = self._rng.choice((0o600, 0o644, 0o666, 0o755))
        path = self._path(self._rng.choice(sorted(self.names)))
        path.chmod(mode)
        self._is(path.stat().st_mode & 0o7777, mode, "the mode")
        return f"{mode:o}"

    def _chown(self) -> str:
        ids = (self._rng.randrange(3000), self._rng.randrange(3000))
        if not self._terms.changes_owner:
            ids = (os.getuid(), os.getgid())
        path = self._path(self._rng.choice(sorted(self.names)))
        os.chown(path, *ids)
        st = path.stat()
        self._is((st.st_uid, st.st_gid), ids, "the owner")
        return f"{ids}"

    def _utime(self) -> str:
        times = tuple(self._times + self._rng.randrange(10**17) for _ in range(2))
        path = self._path(self._rng.choice(sorted(self.names)))
        os.utime(path, ns=(times[0], times[1]))
        st = path.stat()
        self._is((st.st_atime_ns, st.st_mtime_ns), times, "the times")
        return f"{times}"

    def _link(self) -> str:
        if len(self.names) >= MOST_NAMES:
            return self._unlink()
        old, new = self._rng.choice(sorted(self.names)), self._new_name()
        os.link(self._path(old), self._path(new))
        self.names.add(new)
        return f"{old} {new}"

    def _rename(self) -> str:
        old = self._rng.choice(sorted(self.names))
        others = sorted(self.names - {old})
        # onto a name of the same file it does nothing
        new = self._rng.choice([*others, self._new_name(), self._new_name()])
        os.rename(self._path(old), self._path(new))
        if new not in self.names:
            self.names.remove(old)
            self.names.add(new)
        return f"{old} {new}"

    def _unlink(self) -> str:
        if len(self.names) < 2:
            return "nothing"
        name = self._rng.choice(sorted(self.names))
        os.unlink(self._path(name))
        self.names.remove(name)
        return name

    def _new_name(self) -> str:
        self._serial += 1
        return f"{self._rng.choice(DIRECTORIES)}/{self._serial}"

    # --- Data -------------------------------------------------------------------------------------

    def _read(self) -> str:
        file = self._some_file(lambda file: file.reads)
        if file is None:
            return "nothing"
        begin, size = self._range(aligned=file.is_direct)
        read = self._calls.pread_direct if file.is_direct else self._calls.pread
        self._compare(read(file.fd, size, begin), begin, size, self._say(file))
        return f"{begin} +{size} {self._say(file)}"

    def _write(self) -> str:
        file = self._some_file(lambda file: file.writes and not file.appends)
        if file is None:
            return "nothing"
        begin, size = self._range(aligned=file.is_direct, beyond=True)
        content = self._content(size)
        write = self._calls.pwrite_direct if file.is_direct else self._calls.pwrite
        self._is(write(file.fd, content, begin), size, "what was written")
        self._put(begin, content)
        return f"{begin} +{size} {self._say(file)}"

    def _append(self) -> str:
        file = self._some_file(lambda file: file.appends)
        if file is None:
            return "nothing"
        content = self._content(min(self._size(), MAX_SIZE - len(self.data)))
        self._is(self._calls.append(file.fd, content), len(content), "what was written")
        self.data += content
        return f"+{len(content)} {self._say(file)}"

    def _truncate_file(self) -> str:
        file = self._some_file(lambda file: file.writes)
        if file is None:
            return "nothing"
        size = self._new_size()
        self._calls.truncate(file.fd, size)
        self._resize(size)
        return f"to {size} {self._say(file)}"

    def _fallocate(self) -> str:
        file = self._some_file(lambda file: file.writes and not file.appends)
        if file is None:
            return "nothing"
        mode = self._rng.choice(list(MODES))
        begin, size = self._range(beyond=True)
        what = MODES[mode]
        if what in ("collapse-range", "insert-range"):
            begin, size = begin // PAGE * PAGE, -(-size // PAGE) * PAGE
            end = begin + size if what == "collapse-range" else begin
            if end >= len(self.data) or (what == "insert-range" and size > self._room()):
                return "nothing"
        said = f"{what} {begin} +{size} {self._say(file)}"
        try:
            self._calls.fallocate(file.fd, mode, begin, size)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP and mode not in self._terms.modes:
                return f"{said} is not carried"
            raise
        self._is(mode in self._terms.modes, True, f"{said} is carried")
        self._allocated(what, begin, size)
        return said

    def _allocated(self, what: str, begin: int, size: int) -> None:
        end = begin + size
        within = slice(begin, min(end, len(self.data)))
        if what == "collapse-range":
            del self.data[within]
        elif what == "insert-range":
            self.data[begin:begin] = bytes(size)
        elif what in ("punch-hole", "zero-range", "zero-range keep-size"):
            self.data[within] = bytes(max(within.stop - begin, 0))
        if what in ("plain", "zero-range") and end > len(self.data):
            self._resize(end)

    def _copy_within(self) -> str:
        source = self._some_file(lambda file: file.reads and not file.is_direct)
        target = self._some_file(
            lambda file: file.writes and not file.appends and not file.is_direct
        )
        if source is None or target is None:
            return "nothing"
        at, size = self._range()
        to, _ = self._range(beyond=True)
        if abs(at - to) < size:  # which is EINVAL
            to = at + size
        return self._copied(source.fd, target.fd, bytes(self.data), (at, to, size))

    def _copy_from_other(self) -> str:
        target = self._some_file(
            lambda file: file.writes and not file.appends and not file.is_direct
        )
        if target is None:
            return "nothing"
        at = self._rng.randrange(len(self._other) + 1)
        to, size = self._range(beyond=True)
        source = os.open(self._path(OTHER), os.O_RDONLY)
        try:
            return self._copied(source, target.fd, self._other, (at, to, size))
        finally:
            os.close(source)

    def _copied(self, source: int, target: int, data: bytes, place: tuple[int, int, int]) -> str:
        at, to, size = place
        size = min(size, MAX_SIZE - to)
        copied = self._calls.copy_file_range(source, target, size, at, to)
        expected = data[at : at + size]
        enough = copied > 0 or not expected
        self._is(enough and copied <= len(expected), True, f"{copied} bytes are copied of {place}")
        if copied:
            self._put(to, expected[:copied])
        return f"{copied} from {at} to {to}"

    def _seek(self) -> str:
        file = self._some_file(lambda file: True)
        if file is None:
            return "nothing"
        ranges = data_ranges(self._calls, file.fd, len(self.data))
        end = 0
        for begin, after in [*ranges, (len(self.data), len(self.data))]:
            if any(self.data[end:begin]):
                raise Difference(f"{end} to {begin} is told to be a hole: {self._say(file)}")
            end = after
        self._is(end, len(self.data), "the end of the last hole")
        return f"{len(ranges)} ranges of data"

    # --- Mappings ---------------------------------------------------------------------------------

    def _map(self) -> str:
        file = self._some_file(lambda file: file.reads and not file.is_direct)
        if file is None or not self.data:
            return "nothing"
        if len(self._maps) >= MOST_MAPS:
            self._unmap()
        writes = file.flags & os.O_ACCMODE == os.O_RDWR
        access = mmap.ACCESS_WRITE if writes else mmap.ACCESS_READ
        length = self._rng.randrange(1, len(self.data) + 1)
        self._maps.append((mmap.mmap(file.fd, length, access=access), writes))
        return f"+{length}, {'written' if writes else 'read'}"

    def _map_read(self) -> str:
        if not self._maps or not self.data:
            return "nothing"
        mapping, _ = self._rng.choice(self._maps)
        begin, size = self._range_of(mapping)
        found = self._calls.map_read(mapping, begin, begin + size)
        self._compare(found, begin, size, "by a mapping")
        return f"{begin} +{size}"

    def _map_write(self) -> str:
        maps = [mapping for mapping, writes in self._maps if writes]
        if not maps or not self.data:
            return "nothing"
        mapping = self._rng.choice(maps)
        begin, size = self._range_of(mapping)
        content = self._content(size)
        self._calls.map_write(mapping, begin, content)
        self._put(begin, content)
        synced = self._rng.random() < 0.3
        if synced:
            page = begin // PAGE * PAGE
            mapping.flush(page, begin + size - page)
        return f"{begin} +{size}{', synced' if synced else ''}"

    def _unmap(self) -> str:
        if not self._maps:
            return "nothing"
        self._maps.pop(self._rng.randrange(len(self._maps)))[0].close()
        return ""

    def _range_of(self, mapping: mmap.mmap) -> tuple[int, int]:
        # past the end of the file there is SIGBUS, or nothing that lasts
        length = min(len(mapping), len(self.data))
        begin = self._rng.randrange(length)
        return begin, min(self._size(), length - begin)

    # --- What changes nothing ---------------------------------------------------------------------

    def _close(self) -> str:
        if len(self._files) < 2 and not self.names:
            return "nothing: it is the last"
        file = self._some_file(lambda file: True)
        if file is None:
            return "nothing"
        self._files.remove(file)
        os.close(file.fd)
        return self._say(file)

    def _sync(self) -> str:
        file = self._some_file(lambda file: True)
        if file is None:
            return "nothing"
        sync = self._rng.choice((os.fsync, os.fdatasync))
        sync(file.fd)
        return f"by {sync.__name__}"

    def _forget(self) -> str:
        file = self._some_file(lambda file: True)
        if file is None:
            return "nothing"
        os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return self._say(file)

    def _whole(self) -> str:
        file = self._some_file(lambda file: file.reads and not file.is_direct)
        if file is not None:
            found = self._calls.pread(file.fd, MAX_SIZE + 1, 0)
            self._compare(found, 0, len(self.data), self._say(file))
        if self.names:
            self.check()
        return ""

    # --- The model --------------------------------------------------------------------------------

    def _takes_data(self) -> None:
        """Prepare for the first change of data: some filesystems leave old readers behind."""
        if not self.has_own_data and self._terms.keeps_old:
            self.close()
        self.has_own_data = True

    def _put(self, begin: int, content: bytes) -> None:
        if begin > len(self.data):
            self._resize(begin)
        self.data[begin : begin + len(content)] = content

    def _resize(self, size: int) -> None:
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))

    # --- Random things ----------------------------------------------------------------------------

    def _size(self) -> int:
        kind = self._rng.random()
        if kind < 0.7:
            return self._rng.randrange(1, 3 * PAGE)
        if kind < 0.95:
            return self._rng.randrange(1, 64 * PAGE)
        return self._rng.randrange(1, 3 << 20)

    def _new_size(self) -> int:
        kind = self._rng.random()
        if kind < 0.3 and self.data:
            return self._rng.randrange(len(self.data))
        if kind < 0.4:
            return self._rng.choice((0, PAGE, len(self.data), len(self.data) // PAGE * PAGE))
        return min(len(self.data) + self._size() // 2, MAX_SIZE)

    def _range(self, *, aligned: bool = False, beyond: bool = False) -> tuple[int, int]:
        """Return begin and size of a part of the file, or of what may come behind it."""
        reach = len(self.data) + (self._rng.choice((0, 0, PAGE, 20 * PAGE)) if beyond else 0)
        begin = self._rng.randrange(min(reach, MAX_SIZE - PAGE) + 1)
        if self._rng.random() < 0.2:
            begin = begin // PAGE * PAGE
        size = min(self._size(), MAX_SIZE - begin)
        if aligned:
            begin, size = begin // PAGE * PAGE, -(-size // PAGE) * PAGE
        return begin, size

    def _room(self) -> int:
        return MAX_SIZE - len(self.data)

    def _content(self, size: int) -> bytes:
        """Return data that tells what wrote it, and has no zeros."""
        unit = b"%d-%d;" % (self.count, self._rng.randrange(1000))
        return (unit * (size // len(unit) + 1))[:size]

    def _some_file(self, wanted: Callable[[Opened], bool]) -> Opened | None:
        able = [file for file in self._files if wanted(file)]
        return self._rng.choice(able) if able else None

    # --- What is found ----------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        assert self._mnt is not None, "it is mounted"
        return self._mnt / name

    def _say(self, file: Opened) -> str:
        words = ["read", "write", "both"][file.flags & os.O_ACCMODE]
        words += " append" if file.appends else " direct" if file.is_direct else ""
        return f"fd {file.fd} ({words})"

    def _check_size(self) -> None:
        sizes = {os.fstat(file.fd).st_size for file in self._files}
        if self.names:
            st = self._path(min(self.names)).stat()
            sizes.add(st.st_size)
            self._is(st.st_nlink, len(self.names), "the number of links")
        self._is(sizes <= {len(self.data)}, True, f"{sizes}: the sizes are {len(self.data)}")

    def _is(self, found: object, expected: object, what: str) -> None:
        if found != expected:
            raise Difference(f"{self.last[-1]}: {what}: {found}, not {expected}")

    def _compare(self, found: bytes, begin: int, size: int, how: str) -> None:
        expected = bytes(self.data[begin : begin + size])
        if found == expected:
            return
        where = next(_differing(found, expected), min(len(found), len(expected)))
        part = slice(where, where + 20)
        raise Difference(
            f"{how}: from {begin} +{size}, {len(found)} bytes, of which those at {begin + where} "
            f"are {found[part]!r}, not {expected[part]!r}"
        )


def _differing(one: bytes, other: bytes) -> Iterator[int]:
    return (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)


@contextlib.contextmanager
def closing(file: TestedFile) -> Iterator[TestedFile]:
    """Let go of what the file has open, however the block ends."""
    try:
        yield file
    finally:
        file.close()
