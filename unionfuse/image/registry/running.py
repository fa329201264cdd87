"""From the world of plain calls to that of trio, and back."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, TypeVar

import trio

from unionfuse.image.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_T = TypeVar("_T")


def run(work: Callable[[], Awaitable[_T]]) -> _T:
    """Run `work` to its end.

    Several transfers may fail at once, which trio raises as one group: its user is told the
    first failure alone, as of all others it is the cause or they have the same.

    Raises:
        ImageError, OSError: as `work` raises them.
        KeyboardInterrupt: if the user ended it.
    """
    try:
        return trio.run(_returned, work)
    except BaseExceptionGroup as group:
        raise _first(group) from None


class Stopped(ImageError):
    """What a thread does is of no use any more: something else failed, or was interrupted."""


@contextlib.asynccontextmanager
async def stoppable() -> AsyncIterator[Callable[[], None]]:
    """Yield what threads of the body may call now and then: it raises Stopped when all is to end.

    trio waits for a thread however long it takes.
    """
    stopped = threading.Event()

    async def notice() -> None:
        try:
            await trio.sleep_forever()
        finally:
            stopped.set()

    def check() -> None:
        if stopped.is_set():
            raise Stopped("stopped")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(notice)
        yield check
        nursery.cancel_scope.cancel()


async def _returned(work: Callable[[], Awaitable[_T]]) -> _T:
    return await work()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one to raise; the whole group if it has what is a bug of ours."""
    all_leaves = _leaves(group)
    leaves = [leaf for leaf in all_leaves if not isinstance(leaf, Stopped)] or all_leaves
    for leaf in leaves:
        if isinstance(leaf, KeyboardInterrupt):
            return leaf
    if all(isinstance(leaf, (ImageError, OSError)) for leaf in leaves):
        return leaves[0]
    return group


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
