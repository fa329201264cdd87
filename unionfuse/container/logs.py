"""What a container has said, as conmon's log has it.

A line of the log is `TIME STREAM F|P TEXT`: F for the end of a line, P for a part of one. At a
certain size conmon puts a new file in its place.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from unionfuse.container import processes
from unionfuse.container.state import RUNNING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unionfuse.container.state import Container

_FOLLOW_SECONDS = 0.05


class Line(NamedTuple):
    """A line, or a part of one.

    Attributes:
        when: as conmon writes it, RFC 3339.
        stream: stdout or stderr.
        text: with the newline, unless it is a part.
    """

    when: bytes
    stream: str
    text: bytes


def lines(
    container: Container, *, count: int | None = None, follow: bool = False
) -> Iterator[Line]:
    """Yield what the container has said; with `follow`, until it ends.

    Args:
        container: whose log is read.
        count: of the lines that are there, the last that are yielded; None: all.
        follow: whether those that come later are yielded too.

    Raises:
        OSError: if the log can not be read.
    """
    file = _opened(container.log)
    while file is not None:
        with file:
            log = _Log(file)
            while True:
                # both before the last look
                ends = not follow or not _is_running(container)
                replaced = follow and log.is_replaced(container.log)
                found = log.new_lines()
                yield from found if count is None else last(found, count)
                count = None
                if ends or replaced:
                    break
                time.sleep(_FOLLOW_SECONDS)
        file = _opened(container.log) if replaced else None


def _opened(path: Path) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None


class _Log:
    """A file of a log, from its beginning to where it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rest = b""

    def new_lines(self) -> Iterator[Line]:
        """Yield the lines that were not yielded yet."""
        while data := self._file.read(1 << 16):
            *whole, self._rest = (self._rest + data).split(b"\n")
            yield from (line for text in whole if (line := parse(text)) is not None)

    def is_replaced(self, path: Path) -> bool:
        """Tell whether another file is at `path`: nothing more is written to this one."""
        try:
            return not os.path.samestat(os.fstat(self._file.fileno()), os.stat(path))
        except FileNotFoundError:
            return False


def parse(line: bytes) -> Line | None:
    """Read a line of the log, without its newline; None if it is none."""
    when, _, rest = line.partition(b" ")
    stream, _, rest = rest.partition(b" ")
    tag, _, text = rest.partition(b" ")
    if tag not in (b"F", b"P") or stream not in (b"stdout", b"stderr"):
        return None
    return Line(when, stream.decode(), text + b"\n" if tag == b"F" else text)


def last(found: Iterator[Line], count: int) -> list[Line]:
    """Return the last `count` lines, each with its parts."""
    kept: list[list[Line]] = []
    begins = True
    for line in found:
        if begins:
            kept.append([])
            del kept[:-count]
        if kept:
            kept[-1].append(line)
        begins = line.text.endswith(b"\n")
    return [line for parts in kept for line in parts] if count else []


def _is_running(container: Container) -> bool:
    state = container.state()
    return state.status == RUNNING and processes.is_alive(state.conmon)
