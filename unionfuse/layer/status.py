"""Statuses of files with something in them that the disk does not say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODE, _UID, _GID = 0, 4, 5  # as os.stat_result has them


def changed(
    st: os.stat_result,
    *,
    mode: int | None = None,
    uid: int | None = None,
    gid: int | None = None,
    others: Mapping[str, int] | None = None,
) -> os.stat_result:
    """Return `st` with other values; `others` are for st_blocks and st_rdev, by name."""
    plain, rest = cast("tuple[tuple[int, ...], dict[str, Any]]", st.__reduce__()[1])
    values = list(plain)
    for at, value in ((_MODE, mode), (_UID, uid), (_GID, gid)):
        if value is not None:
            values[at] = value
    return os.stat_result(values, {**rest, **others} if others else rest)
