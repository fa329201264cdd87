"""Files and names that processes hand to each other: what one has done, the next one sees at once.

The processes form a ring. Each changes what is its own in the shared directory, tells the next one
through a pipe, and changes it no more until that one has looked: whatever way it looks, it has to
see the last change and nothing older. Some things are looked at without being told: those have to
be whole, and never older than what was seen of them before.

Every method `_offer_KIND` makes a change and returns what the next process is told; its `_see_KIND`
looks at it there.
"""

from __future__ import annotations

import mmap
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path
    from random import Random

BLOCK = 20_000
LONGEST = 30_000
UNIVERSE = [f"l{number}" for number in range(6)] + [f"n{number}" for number in range(10)]
KINDS = ("block", "log", "slot", "names", "sized", "attributes")
LOOKS = ("slot", "log", "names")


def stamped(sequence: int, size: int) -> bytes:
    """Return `size` bytes of which every twelve tell their sequence number; none is zero."""
    return (b"%011d " % sequence * (size // 12 + 1))[:size]


def sequence_of(data: bytes, what: object) -> int:
    """Return the number that `data` is stamped with.

    Raises:
        AssertionError: It is not of one number alone.
    """
    head = data[:11]
    assert head.isdigit(), f"{what}: {data[:40]!r} of {len(data)} bytes"
    found = int(head)
    if data != stamped(found, len(data)):
        wanted = stamped(found, len(data))
        at = next(n for n in range(len(data)) if data[n] != wanted[n])
        raise AssertionError(f"{what}: {found} is followed at byte {at} by {data[at : at + 24]!r}")
    return found


def plant(lowers: Sequence[Path], count: int) -> None:
    """Make the beginning of what `count` processes share."""
    for lower in lowers:
        (lower / "shared").mkdir()
    (lowers[-1] / "shared" / "log").write_bytes(b"begin 0 0\n")
    for index in range(count):
        shared = lowers[index % len(lowers)] / "shared"
        for kind in ("block", "slot"):
            (shared / f"{kind}-{index}").write_bytes(stamped(0, BLOCK))
        (shared / f"sized-{index}").write_bytes(stamped(0, 5000))
        (shared / f"attributes-{index}").write_bytes(stamped(0, 100))
        for number, lower in enumerate(lowers):
            names = lower / "shared" / f"names-{index}"
            names.mkdir()
            for name in UNIVERSE[number:6:3]:
                (names / name).touch()


class Ring:
    """The connections of one process with those before and behind it."""

    def __init__(self, previous: Connection, following: Connection) -> None:
        self._previous = previous
        self._following = following
        self.handlers: dict[str, object] = {}
        self.pending: set[str] = set()

    def tell(self, kind: str, *args: object) -> None:
        """Let the next process handle it; until it has, `kind` is pending."""
        assert kind not in self.pending
        self.pending.add(kind)
        self._following.send((kind, args))

    def serve(self, seconds: float = 0) -> None:
        """Handle what the process before has told, and take the answers of the next one."""
        while self._previous.poll(seconds):
            kind, args = self._previous.recv()
            self.handlers[kind](*args)  # type: ignore[operator]
            self._previous.send(kind)
            seconds = 0
        while self._following.poll():
            self.pending.remove(self._following.recv())


class Shared:
    """What one process does in the shared directory."""

    def __init__(self, root: Path, index: int, count: int, rng: Random, ring: Ring) -> None:
        self._root = os.fspath(root)
        self._index, self._count = index, count
        self._rng, self._ring = rng, ring
        self._sequence = dict.fromkeys(KINDS, 0)
        self._names = dict.fromkeys(UNIVERSE[:6], "file")
        self._sized = stamped(0, 5000)
        self._attributes: dict[str, object] = {"mode": 0o644, "mtime": None, "xattr": None}
        self._seen: dict[str, int] = {}  # by what it is of: the last sequence number, size or time
        self._fds: dict[str, int] = {}
        self._mappings: dict[str, mmap.mmap] = {}
        self._log_position, self._log_rest = 0, b""
        self.count = 0
        for kind in KINDS:
            ring.handlers[kind] = getattr(self, f"_see_{kind}")
        # a reader from before the copy-up
        self._hold(f"attributes-{(index - 1) % count}", os.O_RDONLY)

    def step(self) -> None:
        """Hand one thing over, or look at some that another process changes meanwhile."""
        self.count += 1
        kind = self._rng.choice(KINDS)
        if kind in self._ring.pending:
            getattr(self, f"_look_{self._rng.choice(LOOKS)}")(self._rng.randrange(self._count))
            return
        self._sequence[kind] += 1
        self._ring.tell(kind, *getattr(self, f"_offer_{kind}")(self._sequence[kind]))

    def close(self) -> None:
        """Close what is open."""
        for mapping in self._mappings.values():
            mapping.close()
        for fd in self._fds.values():
            os.close(fd)
        self._mappings.clear()
        self._fds.clear()

    def check(self) -> None:
        """Compare what is this process's own with what it has to be in the end."""
        for kind in ("block", "slot"):
            self._check_stamp(f"{kind}-{self._index}", self._sequence[kind])
        assert self._read(f"sized-{self._index}") == self._sized
        self._check_names(self._index, self._names)
        self._check_attributes(os.stat(self._at(f"attributes-{self._index}")), self._attributes)
        mine = b"%d " % self._index
        lines = [line for line in self._read("log").splitlines() if line.startswith(mine)]
        wanted = [self._line(number) for number in range(1, self._sequence["log"] + 1)]
        assert [line + b"\n" for line in lines] == wanted, f"the log has {len(lines)} of {wanted}"

    # Common

    def _at(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _read(self, name: str) -> bytes:
        with open(self._at(name), "rb", buffering=0) as file:
            return file.readall()

    def _hold(self, name: str, flags: int) -> int:
        """Return a descriptor that stays open."""
        key = f"{name} {flags}"
        if key not in self._fds:
            self._fds[key] = os.open(self._at(name), flags)
        return self._fds[key]

    def _map(self, name: str, *, write: bool = False) -> mmap.mmap:
        """Return a shared mapping that stays."""
        key = f"{name} {write}"
        if key not in self._mappings:
            fd = self._hold(name, os.O_RDWR if write else os.O_RDONLY)
            access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
            self._mappings[key] = mmap.mmap(fd, BLOCK, access=access)
        return self._mappings[key]

    def _not_older(self, what: str, value: int) -> None:
        """Check that `value` is not less than it was before."""
        before = self._seen.get(what, value)
        assert value >= before, f"{what} went back from {before} to {value}"
        self._seen[what] = value

    def _check_stamp(self, name: str, sequence: int) -> None:
        found = sequence_of(self._read(name), name)
        assert found == sequence, f"{name} is {found}, should be {sequence}"

    # A file that is written again and again

    def _offer_block(self, sequence: int) -> tuple[object, ...]:
        name = f"block-{self._index}"
        data = stamped(sequence, BLOCK)
        match self._rng.choice(("write", "held", "map", "truncate")):
            case "held":
                os.pwrite(self._hold(name, os.O_RDWR), data, 0)
            case "map":
                self._map(name, write=True)[:] = data
            case way:
                flags = os.O_WRONLY | (os.O_TRUNC if way == "truncate" else 0)
                with open(os.open(self._at(name), flags), "wb", buffering=0) as file:
                    file.write(data)
        return self._index, sequence

    def _see_block(self, writer: int, sequence: int) -> None:
        name = f"block-{writer}"
        status = os.stat(self._at(name))
        assert status.st_size == BLOCK, f"{name} has {status.st_size} bytes"
        self._not_older(f"mtime of {name}", status.st_mtime_ns)
        ways = {
            "read": self._read(name),
            "an open file": os.pread(self._hold(name, os.O_RDONLY), 2 * BLOCK, 0),
            "a mapping": self._map(name)[:],
        }
        for way, data in ways.items():
            found = sequence_of(data, f"{name} through {way}")
            assert found == sequence, f"{name} through {way} is {found}, not {sequence}"
            assert len(data) == BLOCK, f"{name} through {way}: {len(data)} bytes"

    # A log to which all append

    def _line(self, sequence: int) -> bytes:
        return b"%d %d %s\n" % (self._index, sequence, b"x" * (sequence * 7 % 200))

    def _offer_log(self, sequence: int) -> tuple[object, ...]:
        line = self._line(sequence)
        if self._rng.random() < 0.5:
            fd = self._hold("log", os.O_WRONLY | os.O_APPEND)
            assert os.write(fd, line) == len(line)
        else:
            with open(self._at("log"), "ab", buffering=0) as file:
                assert file.write(line) == len(line)
        return self._index, sequence

    def _see_log(self, writer: int, sequence: int) -> None:
        self._look_log(writer)
        found = self._seen.get(f"lines of {writer}", 0)
        assert found >= sequence, f"the log has {found} lines of {writer}, not {sequence}"

    def _look_log(self, _writer: int) -> None:
        status = os.stat(self._at("log"))
        with open(self._at("log"), "rb", buffering=0) as file:
            file.seek(self._log_position)
            new = file.readall()
        self._log_position += len(new)
        # the size may tell of a line that is being written, and that is not to be read yet
        self._not_older("size of the log", status.st_size)
        self._not_older("mtime of the log", status.st_mtime_ns)
        *lines, self._log_rest = (self._log_rest + new).split(b"\n")
        for line in lines:
            index, number, text = line.split(b" ")
            if index == b"begin":
                continue
            assert text == b"x" * (int(number) * 7 % 200), f"a line of the log is {line!r}"
            before = self._seen.get(f"lines of {int(index)}", 0)
            assert int(number) == before + 1, (
                f"line {before} of {int(index)} is followed by {line!r}"
            )
            self._seen[f"lines of {int(index)}"] = int(number)

    # A file that is replaced by a rename

    def _offer_slot(self, sequence: int) -> tuple[object, ...]:
        temporary = self._at(f"temporary-{self._index}-{sequence % 3}")
        with open(temporary, "xb", buffering=0) as file:
            file.write(stamped(sequence, BLOCK))
        os.rename(temporary, self._at(f"slot-{self._index}"))
        return self._index, sequence

    def _see_slot(self, writer: int, sequence: int) -> None:
        self._look_slot(writer)
        self._check_stamp(f"slot-{writer}", sequence)

    def _look_slot(self, writer: int) -> None:
        name = f"slot-{writer}"
        with open(self._at(name), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            data = file.readall()
        assert len(data) == BLOCK, f"{name} has {len(data)} bytes"
        self._not_older(name, sequence_of(data, name))
        self._not_older(f"mtime of {name}", status.st_mtime_ns)

    # A directory in which names come and go

    def _offer_names(self, _sequence: int) -> tuple[object, ...]:
        for _ in range(self._rng.randrange(1, 4)):
            self._toggle(self._rng.choice(UNIVERSE))
        return self._index, self._names

    def _toggle(self, name: str) -> None:
        path = self._at(f"names-{self._index}/{name}")
        absent = [other for other in UNIVERSE if other not in self._names]
        if name in self._names:
            kind = self._names.pop(name)
            if absent and self._rng.random() < 0.4:
                other = self._rng.choice(absent)
                os.rename(path, self._at(f"names-{self._index}/{other}"))
                self._names[other] = kind
            else:
                (os.rmdir if kind == "directory" else os.unlink)(path)
            return
        kind = self._names[name] = self._rng.choice(("file", "directory", "symlink"))
        if kind == "directory":
            os.mkdir(path)
        elif kind == "symlink":
            os.symlink("target", path)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    def _see_names(self, writer: int, names: dict[str, str]) -> None:
        self._check_names(writer, names)
        listed = os.listdir(self._hold(f"names-{writer}", os.O_RDONLY | os.O_DIRECTORY))
        assert sorted(listed) == sorted(names), f"names-{writer}, open, lists {listed}, not {names}"

    def _check_names(self, writer: int, names: dict[str, str]) -> None:
        directory = self._at(f"names-{writer}")
        with os.scandir(directory) as entries:
            listed = {entry.name: _kind(entry) for entry in entries}
        assert listed == names, f"{directory} lists {listed}, not {names}"
        for name in UNIVERSE:
            found = os.path.lexists(os.path.join(directory, name))
            assert found == (name in names), f"{directory}/{name}: is there: {found}"

    def _look_names(self, writer: int) -> None:
        listed = os.listdir(self._at(f"names-{writer}"))
        assert len(listed) == len(set(listed)), f"names-{writer} lists {sorted(listed)}"

    # A file whose size changes

    def _offer_sized(self, sequence: int) -> tuple[object, ...]:
        name, size = f"sized-{self._index}", self._rng.randrange(LONGEST)
        match self._rng.randrange(3):
            case 0:
                os.truncate(self._at(name), size)
                self._sized = self._sized[:size].ljust(size, b"\0")
            case 1:
                os.ftruncate(self._hold(name, os.O_RDWR), size)
                self._sized = self._sized[:size].ljust(size, b"\0")
            case _:
                data = stamped(sequence, 3000)
                os.pwrite(self._hold(name, os.O_RDWR), data, size)
                before = self._sized.ljust(size, b"\0")
                self._sized = before[:size] + data + before[size + len(data) :]
        return self._index, self._sized

    def _see_sized(self, writer: int, content: bytes) -> None:
        name = f"sized-{writer}"
        held = self._hold(name, os.O_RDONLY)
        for way, status in (("path", os.stat(self._at(name))), ("open file", os.fstat(held))):
            assert status.st_size == len(content), (
                f"{name} by its {way} has {status.st_size} bytes, not {len(content)}"
            )
        assert self._read(name) == content, f"{name} of {len(content)} bytes is read wrongly"
        assert os.pread(held, 2 * LONGEST, 0) == content, f"{name}, open, is read wrongly"

    # A file whose attributes change

    def _offer_attributes(self, sequence: int) -> tuple[object, ...]:
        target = self._at(f"attributes-{self._index}")
        held = self._hold(f"attributes-{self._index}", os.O_RDONLY)
        where = self._rng.choice((target, held))
        match self._rng.randrange(3):
            case 0:
                self._attributes["mode"] = mode = 0o600 + sequence % 0o100
                os.chmod(where, mode)
            case 1:
                self._attributes["mtime"] = moment = 10**18 + sequence
                os.utime(where, ns=(moment, moment))
            case _:
                self._attributes["xattr"] = value = b"%d" % sequence
                os.setxattr(where, "user.stress", value)
        return self._index, self._attributes

    def _see_attributes(self, writer: int, attributes: dict[str, object]) -> None:
        name = f"attributes-{writer}"
        path, held = self._at(name), self._hold(name, os.O_RDONLY)
        self._check_attributes(os.stat(path), attributes)
        self._check_attributes(os.fstat(held), attributes)
        if attributes["xattr"] is not None:
            for where in (path, held):
                assert os.getxattr(where, "user.stress") == attributes["xattr"], where

    def _check_attributes(self, status: os.stat_result, attributes: dict[str, object]) -> None:
        assert stat.S_IMODE(status.st_mode) == attributes["mode"], f"{status}, not {attributes}"
        if attributes["mtime"] is not None:
            assert status.st_mtime_ns == attributes["mtime"], f"{status}, not {attributes}"


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "symlink"
    return "directory" if entry.is_dir(follow_symlinks=False) else "file"
