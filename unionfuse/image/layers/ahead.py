"""Run the source of data beside its user: a thread that is a few pieces ahead.

Decompression and hashes let go of the interpreter, so that files are made meanwhile.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECES = 8
_GIVEN_UP_SECONDS = 0.1


@contextlib.contextmanager
def ahead(pieces: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """Yield an iterator over what `pieces` yields in a thread, at most 8 pieces ahead.

    What it raises is raised to the user. The thread has ended after the `with` block, which waits
    for a read that is going on.
    """
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(_PIECES)
    given_up = threading.Event()

    def put(item: bytes | BaseException | None) -> None:
        while not given_up.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=_GIVEN_UP_SECONDS)
                return

    def run() -> None:
        try:
            for piece in pieces:
                put(piece)
                if given_up.is_set():
                    return
            put(None)
        except BaseException as err:  # the user's to handle
            put(err)

    def taken() -> Iterator[bytes]:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=run, name="layer source", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        given_up.set()
        thread.join()
