"""Which ids are shown of those on disk, as uid_map has them for a user namespace."""

from __future__ import annotations

import errno

from unionfuse.record import record
from unionfuse.union.state import oserror

_DEFAULT_OVERFLOW = 65534


@record
class IdMap:
    """A map of the uids, or of the gids, of a union.

    Attributes:
        ranges: of ids on disk: the first, the id that it is shown as, how many there are.
            Without any, all are shown as they are.
        overflow: what is shown of an id that is in no range.
        only: the one id that is shown of all, whatever the ranges say; None if there is none.
    """

    ranges: tuple[tuple[int, int, int], ...] = ()
    overflow: int = _DEFAULT_OVERFLOW
    only: int | None = None

    def shown(self, stored: int) -> int:
        """Return what is shown of an id on disk."""
        if self.only is not None:
            return self.only
        if not self.ranges:
            return stored
        for first, shown, count in self.ranges:
            if first <= stored < first + count:
                return shown + stored - first
        return self.overflow

    def stored(self, shown: int) -> int:
        """Return the id on disk that is shown so.

        Raises:
            OSError: EINVAL if there is none, as chown(2) in a user namespace.
        """
        found = self._find(shown)
        if found is None:
            raise oserror(errno.EINVAL)
        return found

    def stored_or_overflow(self, shown: int) -> int:
        """Return the id on disk that is shown so, else the overflow id, as fuse-overlayfs does.

        That is for what is made by an engine, which need not be anybody in the container.
        """
        found = self._find(shown)
        return self.overflow if found is None else found

    def _find(self, shown: int) -> int | None:
        if not self.ranges:
            return shown
        for stored, first, count in self.ranges:
            if first <= shown < first + count:
                return stored + shown - first
        return None


def overflow_id(kind: str) -> int:
    """Return the machine's overflow id; `kind` is uid or gid."""
    try:
        with open(f"/proc/sys/kernel/overflow{kind}") as file:
            return int(file.read())
    except (OSError, ValueError):
        return _DEFAULT_OVERFLOW
