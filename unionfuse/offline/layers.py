"""Open an upper, and lowers if they are known, to be read or changed while nothing is mounted."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from unionfuse.layer.stack import LayerStack
from unionfuse.offline.errors import OfflineError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_WORKDIR_SUFFIX = b".work"  # as `unionfuse mount` has it


@contextlib.contextmanager
def opened(upper: bytes, lowers: list[bytes]) -> Iterator[LayerStack]:
    """Open the layers, topmost lower first, for the time of a `with` block.

    Raises:
        OfflineError: naming the layer that can not be opened and why.
    """
    if b"" in lowers:
        raise OfflineError("an empty lower layer: give LOWER[:LOWER...]")
    try:
        stack = LayerStack.open(upper, lowers)
    except OSError as err:
        where = err.filename if isinstance(err.filename, bytes) else upper
        raise OfflineError(f"{os.fsdecode(where)}: {err.strerror}") from None
    try:
        yield stack
    finally:
        stack.close()


def workdir_of(upper: bytes) -> bytes:
    """Return the path of the workdir of `upper` where none is given."""
    return os.path.realpath(upper) + DEFAULT_WORKDIR_SUFFIX
