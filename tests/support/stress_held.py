"""Lower files that one process holds open while another changes them for the first time.

What the one that holds it may see depends on how files are served: where data goes past the
daemon, as on the kernel's overlayfs, it sees the old file for ever, else the new one. It must not
see anything else: no zeros, no error, and once the change is done not a part of it.
"""

from __future__ import annotations

import mmap
import os
import stat
from typing import TYPE_CHECKING

from tests.support.stress_shared import stamped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from random import Random

    from tests.support.stress_shared import Ring

SIZE = 16_384
PART, PART_AT = 5000, 3000
# What is done to a file that is held for reading: by it the next process makes the new content.
CHANGES = (
    "write", "part", "map", "append", "truncate", "replace", "chmod", "rename", "unlink",
    "rename_over", "link",
)  # fmt: skip
# What is done to a file whose mapping is written at the same time.
DISTURBANCES = ("append", "chmod", "rename", "link", "set_attribute", "utime")
MODE = 0o604


def plant(lowers: Sequence[Path], index: int, size: int) -> None:
    """Make the files that process `index` will hold."""
    pool = lowers[index % len(lowers)] / f"pool-{index}"
    pool.mkdir()
    for number in range(size):
        (pool / f"{number}").write_bytes(stamped(0, SIZE))


def changed(how: str, old: bytes, new: bytes) -> bytes | None:
    """Return the content that a change leads to; None where the name has gone."""
    match how:
        case "write" | "map" | "replace" | "rename_over":
            return new
        case "part":
            return old[:PART_AT] + new[PART_AT : PART_AT + PART] + old[PART_AT + PART :]
        case "append":
            return old + new[:PART]
        case "truncate":
            return old[:PART]
        case "unlink":
            return None
        case _:
            return old


class Held:
    """What one process holds of its pool, and what it does to that of the process before it."""

    def __init__(self, root: Path, index: int, rng: Random, ring: Ring) -> None:
        self._root, self._index = os.fspath(root), index
        self._rng, self._ring = rng, ring
        self._number = 0
        self._expected: dict[str, bytes] = {}
        self.count = 0
        ring.handlers["change"] = self._change

    def step(self) -> None:
        """Hold one file and have it changed."""
        self.count += 1
        path = os.path.join(self._root, f"pool-{self._index}", str(self._number))
        self._number += 1
        if not os.path.exists(path):  # the pool is at its end: new ones are as good
            with open(path, "xb", buffering=0) as file:
                file.write(stamped(0, SIZE))
        if self._rng.random() < 0.7:
            self._read_while_it_changes(path, self._rng.choice(CHANGES))
        else:
            self._map_while_it_changes(path, self._rng.choice(DISTURBANCES))

    def check(self) -> None:
        """Compare every file that was changed with what it has to be."""
        for path, content in self._expected.items():
            with open(path, "rb", buffering=0) as file:
                found = file.readall()
            assert found == content, (
                f"{path}: {len(found)} bytes for {len(content)}: {found[:40]!r}"
            )
        gone = [path for path in self._paths() if path not in self._expected]
        assert not [path for path in gone if os.path.lexists(path)]

    def _paths(self) -> list[str]:
        pool = os.path.join(self._root, f"pool-{self._index}")
        return [os.path.join(pool, str(number)) for number in range(self._number)]

    # One process holds

    def _until_done(self, path: str, how: str, look: Callable[[], None]) -> None:
        self._ring.tell("change", path, how, self._number)
        while "change" in self._ring.pending:
            look()
            self._ring.serve(0.0001)
        look()

    def _read_while_it_changes(self, path: str, how: str) -> None:
        old, new = stamped(0, SIZE), stamped(self._number, SIZE)
        after = changed(how, old, new)
        ends = [old] if after is None or how == "rename_over" else [old, after]
        fd = os.open(path, os.O_RDONLY)
        inode = os.fstat(fd).st_ino
        # nothing maps what is cut off
        maps = how not in ("truncate", "replace") and self._rng.random() < 0.5
        mapping = mmap.mmap(fd, SIZE, access=mmap.ACCESS_READ) if maps else None

        def views() -> list[bytes]:
            found = [os.pread(fd, 2 * SIZE, 0)]
            return found if mapping is None else [*found, mapping[:]]

        def look() -> None:
            for data in views():
                assert is_between(data, ends), f"{path}, {how}: {describe(data, ends)}"

        try:
            self._until_done(path, how, look)
            for data in views():
                whole = [end[: len(data)] for end in ends] if mapping else ends
                assert data in whole, f"{path}, after {how}: {describe(data, ends)}"
            status = os.fstat(fd)
            assert status.st_ino == inode, f"{path}, {how}: inode {inode} became {status.st_ino}"
            if how == "chmod":
                assert stat.S_IMODE(status.st_mode) == MODE, f"{path}: {status.st_mode:o}"
            if after is not None:
                kept = self._look_by_name(path, how, after)
                same = os.stat(kept).st_ino == inode
                assert same == (how != "rename_over"), f"{path}, {how}: the same inode: {same}"
        finally:
            if mapping is not None:
                mapping.close()
            os.close(fd)

    def _map_while_it_changes(self, path: str, how: str) -> None:
        content = bytearray(stamped(0, SIZE))
        fd = os.open(path, os.O_RDWR)
        number = 0
        with mmap.mmap(fd, SIZE) as mapping:

            def look() -> None:
                nonlocal number
                number += 1
                offset = number * 1237 % (SIZE - 600)
                content[offset : offset + 600] = data = stamped(number, 600)
                mapping[offset : offset + 600] = data
                assert mapping[:] == content, f"{path}, {how}: the mapping forgets"

            self._until_done(path, how, look)
            if self._rng.random() < 0.5:
                mapping.flush()
        after = changed(how, bytes(content), stamped(self._number, SIZE))
        assert after is not None, "no disturbance takes the name away"
        try:
            assert os.pread(fd, 2 * SIZE, 0) == after, f"{path}, {how}: the file forgets"
        finally:
            os.close(fd)
        self._look_by_name(path, how, after)

    def _look_by_name(self, path: str, how: str, content: bytes) -> str:
        """Look at a changed file by its name, new ones too, and remember it; return the name."""
        names = {"rename": [f"{path}-renamed"], "link": [path, f"{path}-linked"]}.get(how, [path])
        for name in names:
            with open(name, "rb", buffering=0) as file:
                data = file.readall()
            assert data == content, f"{name}, newly opened after {how}: {describe(data, [content])}"
            self._expected[name] = content
        return names[0]

    # The other one changes

    def _change(self, path: str, how: str, number: int) -> None:
        new = stamped(number, SIZE)
        match how:
            case "write" | "part" | "append" | "replace":
                self._write(path, how, new)
            case "map":
                fd = os.open(path, os.O_RDWR)
                with mmap.mmap(fd, SIZE) as mapping:
                    os.close(fd)
                    mapping[:] = new
            case "truncate":
                os.truncate(path, PART)
            case "chmod":
                os.chmod(path, MODE)
            case "rename":
                os.rename(path, f"{path}-renamed")
            case "link":
                os.link(path, f"{path}-linked")
            case "unlink":
                os.unlink(path)
            case "rename_over":
                with open(f"{path}-new", "xb", buffering=0) as file:
                    file.write(new)
                os.rename(f"{path}-new", path)
            case "set_attribute":
                os.setxattr(path, "user.stress", b"1")
            case _:
                os.utime(path, (10**9, 10**9))

    def _write(self, path: str, how: str, new: bytes) -> None:
        flags, data, offset = {
            "write": (os.O_WRONLY, new, 0),
            "part": (os.O_RDWR, new[PART_AT : PART_AT + PART], PART_AT),
            "append": (os.O_WRONLY | os.O_APPEND, new[:PART], 0),
            "replace": (os.O_WRONLY | os.O_TRUNC, new, 0),
        }[how]
        fd = os.open(path, flags)
        try:
            os.lseek(fd, offset, os.SEEK_SET)
            assert os.write(fd, data) == len(data)
        finally:
            os.close(fd)


def is_between(data: bytes, ends: Sequence[bytes]) -> bool:
    """Tell whether `data` is one of `ends`, or on its way between two of them.

    A read that runs beside a write may see a part of it, on any filesystem.
    """
    if data in ends:
        return True
    candidates = [end.ljust(len(data), b"\0") for end in ends]
    if len(data) > max(map(len, ends)):
        return False
    return all(byte and any(byte == end[at] for end in candidates) for at, byte in enumerate(data))


def describe(data: bytes, ends: Sequence[bytes]) -> str:
    """Return where `data` parts from each of `ends`."""
    lines = [f"{len(data)} bytes"]
    for end in ends:
        pairs = enumerate(zip(data, end, strict=False))
        at = next((n for n, (one, two) in pairs if one != two), min(len(data), len(end)))
        lines.append(f"from byte {at} on {data[at : at + 24]!r} for {end[at : at + 24]!r}")
    return "; ".join(lines)
