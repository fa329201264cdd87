"""Do something in a child that was forked for it, and hear how that went.

What it does to itself (another root, other namespaces) ends with it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unionfuse.record import record

if TYPE_CHECKING:
    from collections.abc import Callable


@record
class Child:
    """A child at work.

    Attributes:
        pid: of the process.
        answer: a descriptor, from which its failure can be read.
    """

    pid: int
    answer: int

    def failure(self) -> str:
        """Wait for its end; return why it has failed, empty if it has not."""
        with open(self.answer, "rb") as answer:
            text = os.fsdecode(answer.read())
        _, status = os.waitpid(self.pid, 0)
        return text or ("the child that does it was killed" if status else "")


def begin(
    work: Callable[[], None], known: type[Exception], *, closing: tuple[int, ...] = ()
) -> Child:
    """Let a child do `work`.

    Args:
        work: what it does; returns when it is done.
        known: the error whose text is for users.
        closing: descriptors that it must not hold.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return Child(pid, reader)
    text = ""
    try:
        for fd in (reader, *closing):
            os.close(fd)
        work()
    except BaseException as err:
        text = _told(err, known)
    finally:
        os.write(writer, os.fsencode(text))
        os._exit(0)


def _told(err: BaseException, known: type[Exception]) -> str:
    if isinstance(err, known):
        return str(err)
    if isinstance(err, OSError) and err.strerror:
        named = isinstance(err.filename, str | bytes)
        return f"{os.fsdecode(err.filename)}: {err.strerror}" if named else err.strerror
    return f"{type(err).__name__}: {err}"
