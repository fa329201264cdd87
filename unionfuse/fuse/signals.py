"""The signals that a daemon obeys."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

OBEYED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def hold() -> None:
    """Block the signals that `serving.serve` obeys.

    One that comes before it is obeyed would leave a dead mount: it waits until then.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, OBEYED)


@contextlib.contextmanager
def noticed() -> Iterator[int]:
    """Yield a descriptor that can be read as soon as a signal has come that is held.

    After the `with` block it is held again, for who obeys it.

    Preconditions:
        `hold` has been called, by the main thread, which calls this.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {number: signal.signal(number, _leave) for number in OBEYED}
    old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OBEYED)
    try:
        yield reader
    finally:
        hold()
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        came = b""
        with contextlib.suppress(BlockingIOError):
            came = os.read(reader, 64)
        for obeyed in OBEYED:
            if obeyed in came:
                signal.raise_signal(obeyed)
        os.close(reader)
        os.close(writer)


def _leave(_: int, __: object) -> None:
    """Do nothing: that the signal came is in the descriptor."""
