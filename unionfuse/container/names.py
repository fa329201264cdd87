"""Ids and names of containers."""

from __future__ import annotations

import os
import re

from unionfuse.container.errors import ContainerError

SHORT = 12  # digits of an id that are shown
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_FIRST = (
    "amber", "bold", "brave", "bright", "calm", "clever", "crisp", "eager", "fair", "fond",
    "gentle", "glad", "golden", "happy", "hardy", "humble", "jolly", "keen", "kind", "lively",
    "lucid", "merry", "mild", "nimble", "noble", "patient", "proud", "quick", "quiet", "rapid",
    "serene", "sharp", "silent", "steady", "sunny", "swift", "tender", "vivid", "warm", "wise",
)  # fmt: skip
_SECOND = (
    "alder", "ash", "aspen", "beech", "birch", "cedar", "cherry", "clover", "cypress", "elder",
    "elm", "fern", "fir", "ginkgo", "hazel", "heather", "holly", "iris", "ivy", "juniper",
    "larch", "laurel", "lilac", "linden", "maple", "mint", "moss", "myrtle", "oak", "olive",
    "pine", "poplar", "rowan", "sage", "sorrel", "spruce", "thyme", "walnut", "willow", "yew",
)  # fmt: skip


def new_id() -> str:
    """Return a new id: 64 hexadecimal digits."""
    return os.urandom(32).hex()


def new_name() -> str:
    """Return a name that a user can remember; it may be taken."""
    first, second = os.urandom(2)
    return f"{_FIRST[first % len(_FIRST)]}_{_SECOND[second % len(_SECOND)]}"


def check_name(name: str) -> str:
    """Return `name` if a container may have it.

    Raises:
        ContainerError: if it may not.
    """
    if _NAME.fullmatch(name) is None:
        raise ContainerError(
            f"{name!r} can be no name: letters, digits and then also _ . - are allowed"
        )
    return name
