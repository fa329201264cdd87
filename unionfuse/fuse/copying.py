"""Run the copy-ups that requests ask for, their data in threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from unionfuse.union.fs import CopyUpNeeded, UnionFs

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from unionfuse.union.node import Node

P = ParamSpec("P")
T = TypeVar("T")


class CopyUps:
    """The copy-ups of one union that are on their way.

    Meanwhile other requests go on; those that need the same copy wait for it, and readers of
    the file go on reading the lower one.
    """

    def __init__(self, fs: UnionFs) -> None:
        """Copy up for requests to `fs`."""
        self._fs = fs
        self._running: dict[Node, trio.Event] = {}

    async def retry(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `method` until no copy-up stands in its way.

        Raises:
            OSError: of the method, or of the copy-up: ENOSPC, EDQUOT, EIO.
        """
        while True:
            try:
                return method(*args, **kwargs)
            except CopyUpNeeded as needed:
                node = needed.node
            running = self._running.get(node)
            if running is None:
                await self._copy_up(node)
            else:
                await running.wait()

    async def _copy_up(self, node: Node) -> None:
        import trio

        done = self._running[node] = trio.Event()
        try:
            copy = self._fs.begin_copy_up(node)
            try:
                await trio.to_thread.run_sync(copy.copy_data)
            except BaseException:
                self._fs.abandon_copy_up(copy)
                raise
            self._fs.finish_copy_up(copy)
        finally:
            del self._running[node]
            done.set()
