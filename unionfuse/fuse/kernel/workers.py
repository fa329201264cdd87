"""Threads for what waits for the disk: they answer by themselves when it is done.

An fsync that went through trio's threads took 0.15 ms more: to the thread and back to the loop,
which then answered. Here nothing comes back. The threads that were needed at once stay; they
sleep until there is work.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST = 32


class Workers:
    """A bounded number of threads."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._unfinished = 0

    def start(self, job: Callable[[], None]) -> None:
        """Run `job`, which must not raise, in a thread."""
        with self._lock:
            self._unfinished += 1
            is_short = len(self._threads) < min(self._unfinished, _MOST)
        if is_short:
            thread = threading.Thread(target=self._work, name="disk", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def close(self) -> None:
        """Wait until all jobs are done, and end the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            with self._lock:
                self._unfinished -= 1
