"""Let a process crash, or an operation fail, at any system call that changes something.

Python reports such calls of `os` to an audit hook before it makes them; the hook here is where it
happens.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MUTATING = frozenset(
    f"os.{call}"
    for call in [
        "chmod",
        "chown",
        "link",
        "mkdir",
        "remove",
        "removexattr",
        "rename",
        "rmdir",
        "setxattr",
        "symlink",
        "truncate",
        "utime",
    ]
)
WRITING = os.O_CREAT | os.O_WRONLY | os.O_RDWR | os.O_TRUNC


class Crash(BaseException):
    """The process is gone: nothing catches this, and nothing can be done any more."""


class Fault:
    """What happens at the n-th change from now on.

    Attributes:
        calls: how many changes were tried while it was armed.
    """

    def __init__(self) -> None:
        self._at = 0
        self._error: BaseException | None = None
        self._lasts = False
        self.calls = 0
        sys.addaudithook(self._hook)  # for good: there is no way to take it out again

    @contextlib.contextmanager
    def armed(self, at: int, error: BaseException, *, lasts: bool) -> Iterator[None]:
        """Raise `error` at change number `at`, and at all later ones if it `lasts`."""
        self._at, self._error, self._lasts, self.calls = at, error, lasts, 0
        try:
            yield
        finally:
            self._error = None

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self._error is None:
            return
        if event not in MUTATING and not (event == "open" and args[2] & WRITING):
            return
        if event == "os.truncate" and args[1] == 0:  # gives room back: no full disk stops that
            return
        self.calls += 1
        if self.calls == self._at or (self._lasts and self.calls > self._at):
            raise self._error


FAULT = Fault()


def close_new(before: set[str]) -> None:
    """Close what was opened since, as the end of a process does."""
    for fd in set(os.listdir("/proc/self/fd")) - before:
        with contextlib.suppress(OSError):
            os.close(int(fd))
