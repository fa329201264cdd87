"""The requests that no daemon avoids, since the kernel asks all the same (as of Linux 6.18).

Reading a directory, a link or data by a request makes the kernel forget the access time it knows
(`fuse_invalidate_atime`), and the next stat asks for it: for the second time there is a GETATTR
for each. Past that, with the write-back cache each close makes it forget the blocks of a file
(`fuse_flush`), and with passthrough each read its access time. statfs(2), which find calls once, is
kept by nobody.

The first write to a file and each chown of one ask for `security.capability`
(cap_inode_need_killpriv). Only a daemon that has no extended attributes at all is not asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from bench.tree import N_SMALL, N_USR, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Floor: TypeAlias = Callable[[Tree], Mapping[str, int]]

N_REGULAR = N_USR + N_SMALL + 1


# The ways of the kernel session: as it comes, and the two that can be asked for.
WAYS = ("auto", "cached", "passthrough")


def nothing(_tree: Tree) -> dict[str, int]:
    """Return that everything can be avoided."""
    return {}


def find(tree: Tree) -> dict[str, int]:
    return dict.fromkeys(WAYS, tree.directories + 2)


def find_again(_tree: Tree) -> dict[str, int]:
    return dict.fromkeys(WAYS, 1)


def lstat(tree: Tree) -> dict[str, int]:
    return dict.fromkeys(WAYS, tree.directories + 1)


def tar(tree: Tree) -> dict[str, int]:
    attributes = tree.files + tree.directories + 1
    return {"auto": attributes, "cached": attributes, "passthrough": attributes + N_REGULAR}


def tar_again(_tree: Tree) -> dict[str, int]:
    return {"cached": N_REGULAR, "passthrough": 2 * N_REGULAR}


def capabilities(cached: int, passthrough: int, asked: int) -> Floor:
    """Return a floor of so many requests and `asked` GETXATTRs of security.capability."""
    return lambda _tree: {"cached": cached + asked, "passthrough": passthrough + asked}
