"""What a container has said, as conmon's log has it.

A line of the log is `TIME STREAM F|P TEXT`: F for the end of a line, P for a part of one. At a
certain size conmon begins the file anew.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from unionfuse.container import processes
from unionfuse.container.state import RUNNING

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def lines(container: Container, *, follow: bool = False) -> Iterator[Line]:
    """Yield what the container has said; with `follow`, until it ends.

    Raises:
        OSError: if the log can not be read.
    """
    try:
        file = open(container.log, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return
    with file:
        rest = b""
        while True:
            ends = not follow or not _is_running(container)  # before the last look
            while data := file.read(1 << 16):
                *whole, rest = (rest + data).split(b"\n")
                yield from (line for text in whole if (line := parse(text)) is not None)
            if ends:
                return
            time.sleep(_FOLLOW_SECONDS)
            if file.tell() > container.log.stat().st_size:
                file.seek(0)


def parse(line: bytes) -> Line | None:
    """Read a line of the log, without its newline; None if it is none."""
    when, _, rest = line.partition(b" ")
    stream, _, rest = rest.partition(b" ")
    tag, _, text = rest.partition(b" ")
    if tag not in (b"F", b"P") or stream not in (b"stdout", b"stderr"):
        return None
    return Line(when, stream.decode(), text + b"\n" if tag == b"F" else text)


def later(container: Container, begun: list[Line], *, follow: bool) -> Iterator[Line]:
    """Yield lines that are there, then with `follow` those that come after the last of them."""
    yield from begun
    if follow:
        reached = begun[-1] if begun else None
        seen = reached is None
        for line in lines(container, follow=True):
            if seen:
                yield line
            seen = seen or line == reached


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
