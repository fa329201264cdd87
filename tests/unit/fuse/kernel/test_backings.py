"""Which backing the opens of a nodeid go by, and that none is held longer than it is of use."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.fuse.kernel import backings as module
from unionfuse.fuse.kernel.backings import Backings

if TYPE_CHECKING:
    from collections.abc import Iterator


class Kernel:
    """Gives backing ids and takes them back, as /dev/fuse does.

    Attributes:
        held: the ids that are not given back.
        problem: raised instead of giving one.
    """

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.problem: OSError | None = None
        self._ids = itertools.count(1)

    def open(self, fuse_fd: int, fd: int) -> int:
        os.fstat(fd)
        if self.problem is not None:
            raise self.problem
        backing_id = next(self._ids)
        self.held.add(backing_id)
        return backing_id

    def close(self, fuse_fd: int, backing_id: int) -> None:
        self.held.remove(backing_id)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel()
    monkeypatch.setattr(module, "backing_open", kernel.open)
    monkeypatch.setattr(module, "backing_close", kernel.close)
    return kernel


def open_null() -> int:
    return os.open("/dev/null", os.O_PATH)


def test_a_backing_is_kept_for_the_next_open(kernel: Kernel) -> None:
    backings = Backings(-1)
    first = backings.add(7, is_upper=False, open_path=open_null)
    backings.opened(7, first)
    backings.released(7)
    assert backings.get(7) is first
    assert kernel.held == {first.backing_id}


def test_a_forgotten_nodeid_holds_no_file(kernel: Kernel) -> None:
    backings = Backings(-1)
    backings.add(7, is_upper=False, open_path=open_null)
    backings.drop(7)
    assert backings.get(7) is None
    assert not kernel.held


def test_what_is_open_is_not_dropped(kernel: Kernel) -> None:
    backings = Backings(-1)
    backing = backings.add(7, is_upper=False, open_path=open_null)
    backings.opened(7, backing)
    backings.drop(7)
    assert backings.get(7) is backing
    assert kernel.held == {backing.backing_id}


def test_of_what_is_not_open_a_bounded_number_is_kept(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_IDLE", 3)
    backings = Backings(-1)
    for nodeid in range(10):
        backings.opened(nodeid, backings.add(nodeid, is_upper=True, open_path=open_null))
    for nodeid in range(10):
        backings.released(nodeid)
    assert [nodeid for nodeid in range(10) if backings.get(nodeid)] == [7, 8, 9]
    assert len(kernel.held) == 3


def test_a_file_that_the_kernel_refuses_is_opened_through_us(kernel: Kernel) -> None:
    kernel.problem = OSError(40, "stacked")
    assert Backings(-1).add(7, is_upper=False, open_path=open_null).backing_id == 0


def test_without_a_path_it_is_opened_through_us(kernel: Kernel) -> None:
    assert Backings(-1).add(7, is_upper=True, open_path=None).backing_id == 0
    assert not kernel.held
