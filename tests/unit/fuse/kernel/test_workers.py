"""Threads that wait for the disk."""

from __future__ import annotations

import threading

from unionfuse.fuse.kernel import workers
from unionfuse.fuse.kernel.workers import Workers

TIMEOUT = 10


def test_all_jobs_are_done_when_it_is_closed() -> None:
    done: list[int] = []
    pool = Workers()
    for number in range(100):
        pool.start(lambda number=number: done.append(number))
    pool.close()
    assert sorted(done) == list(range(100))


def test_jobs_do_not_wait_for_one_another() -> None:
    pool = Workers()
    meeting = threading.Barrier(5, timeout=TIMEOUT)
    for _ in range(5):
        pool.start(meeting.wait)
    pool.close()
    assert not meeting.broken


def test_the_number_of_threads_is_bounded() -> None:
    pool = Workers()
    gate = threading.Event()
    for _ in range(3 * workers._MOST):
        pool.start(lambda: gate.wait(TIMEOUT) and None)
    assert len(pool._threads) == workers._MOST
    gate.set()
    pool.close()


def test_a_thread_that_is_free_is_used_again() -> None:
    pool = Workers()
    for _ in range(5):
        done = threading.Event()
        pool.start(done.set)
        assert done.wait(TIMEOUT)
        while pool._unfinished:
            pass
    assert len(pool._threads) == 1
    pool.close()
