"""How long work tells of itself."""

from __future__ import annotations

from collections.abc import Callable

Watch = Callable[[str, int, int], None]
"""Is called with what is being done, and how much of how much of it is (bytes)."""


def unwatched(what: str, done: int, total: int) -> None:
    """Be told, and do nothing."""
