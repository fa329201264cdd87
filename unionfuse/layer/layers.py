"""The layers of one union, opened and claimed: all that a mount needs before it is made."""

from __future__ import annotations

from unionfuse.layer.stack import LayerStack
from unionfuse.layer.workdir import Workdir
from unionfuse.record import record


@record
class Layers:
    """An opened stack, and the workdir of its upper.

    Attributes:
        workdir: None for a read-only union.
    """

    stack: LayerStack
    workdir: Workdir | None

    @classmethod
    def open(  # noqa: PLR0913 - what layers are opened with
        cls,
        lowers: list[bytes],
        upper: bytes | None = None,
        workdir: bytes | None = None,
        *,
        max_open_dirs: int = 512,
        private_lowers: bool = False,
        mountpoint: bytes | None = None,
        lock_timeout: float = 1.0,
    ) -> Layers:
        """Open layers at these paths, topmost lower first, and claim the workdir.

        Args:
            lowers: at least one.
            upper: None for a read-only union.
            workdir: that of the upper.
            max_open_dirs: how many of their directories are open at a time.
            private_lowers, mountpoint: see `LayerStack.open`.
            lock_timeout: see `Workdir.claim`.

        Raises:
            OSError: if a layer can not be opened.
            WorkdirError: if the workdir can not be used.
        """
        stack = LayerStack.open(
            upper, lowers, max_open_dirs, private_lowers=private_lowers, mountpoint=mountpoint
        )
        try:
            if stack.upper is None or workdir is None:
                return cls(stack, None)
            return cls(stack, Workdir.claim(workdir, stack.upper, lock_timeout))
        except BaseException:
            stack.close()
            raise

    def close(self) -> None:
        """Let go of all; may be called again."""
        if self.workdir is not None:
            self.workdir.close()
        self.stack.close()
