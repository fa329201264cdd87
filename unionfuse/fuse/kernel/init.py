"""INIT: agree with the kernel on what both sides have.

Each feature is used only where the kernel offers it; what the two I/O modes need differs:

- cached: opens that make no request (so no ATOMIC_O_TRUNC: the truncation would be lost), and
  writes that the kernel gathers (WRITEBACK_CACHE);
- passthrough (Linux 6.9): each open is a request, and data then goes past the daemon. The kernel
  refuses it together with WRITEBACK_CACHE.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unionfuse.fuse.errors import MountError
from unionfuse.fuse.kernel import wire
from unionfuse.record import record, replace

if TYPE_CHECKING:
    from unionfuse.fuse.options import MountPlan

MAX_WRITE = 1 << 20
CACHED, PASSTHROUGH = "cached", "passthrough"

_MAX_BACKGROUND = 64
_CONGESTION = 48
_STACK_DEPTH = 1  # layers on a plain filesystem; those that are stacked themselves are read by us
_CAP_SYS_ADMIN = 21
_ALL_IDS = [["0", "0", "4294967295"]]
_PASSTHROUGH_RELEASE = (6, 9)

_WANTED = {
    "ASYNC_READ": wire.ASYNC_READ,
    "BIG_WRITES": wire.BIG_WRITES,
    "DONT_MASK": wire.DONT_MASK,
    "DO_READDIRPLUS": wire.DO_READDIRPLUS,
    "ASYNC_DIO": wire.ASYNC_DIO,
    "NO_OPEN_SUPPORT": wire.NO_OPEN_SUPPORT,
    "PARALLEL_DIROPS": wire.PARALLEL_DIROPS,
    "POSIX_ACL": wire.POSIX_ACL,
    "MAX_PAGES": wire.MAX_PAGES,
    "CACHE_SYMLINKS": wire.CACHE_SYMLINKS,
    "NO_OPENDIR_SUPPORT": wire.NO_OPENDIR_SUPPORT,
    "EXPLICIT_INVAL_DATA": wire.EXPLICIT_INVAL_DATA,
    "HANDLE_KILLPRIV_V2": wire.HANDLE_KILLPRIV_V2,
    "SETXATTR_EXT": wire.SETXATTR_EXT,
    "INIT_EXT": wire.INIT_EXT,
    "EXPORT_SUPPORT": wire.EXPORT_SUPPORT,
}
_OF_MODE = {
    CACHED: {"WRITEBACK_CACHE": wire.WRITEBACK_CACHE},
    PASSTHROUGH: {"ATOMIC_O_TRUNC": wire.ATOMIC_O_TRUNC, "PASSTHROUGH": wire.PASSTHROUGH},
}
_NEEDED = wire.NO_OPEN_SUPPORT | wire.NO_OPENDIR_SUPPORT | wire.BIG_WRITES
_LOW = (1 << 32) - 1


class TooOldError(Exception):
    """The kernel lacks what this session can not do without."""


@record
class Agreement:
    """What this connection may use.

    Attributes:
        minor: of the protocol, the older one's of both sides.
        flags: of INIT, 64 bits.
        io: cached or passthrough.
    """

    minor: int
    flags: int
    io: str

    def has(self, flag: int) -> bool:
        """Tell whether a flag of INIT was agreed on."""
        return bool(self.flags & flag)

    def __str__(self) -> str:
        names = _WANTED | _OF_MODE[self.io]
        agreed = " ".join(name for name, flag in names.items() if self.flags & flag)
        return f"FUSE 7.{self.minor}, {self.io} data, {agreed}"


def negotiate(
    body: bytes,
    wanted_io: str,
    *,
    writeback: bool = True,
    export: bool = False,
    has_acls: bool = True,
) -> tuple[Agreement, bytes]:
    """Answer the body of an INIT request: what is agreed, and the body of the reply.

    Args:
        body: a `fuse_init_in`, as long as the kernel's version has it.
        wanted_io: cached or passthrough; passthrough falls back to cached.
        writeback: whether the kernel may gather writes where it caches data.
        export: whether file handles are found again after their files were forgotten.
        has_acls: whether there are POSIX ACLs.

    Raises:
        TooOldError: naming what the kernel has.
    """
    major, minor, readahead, low, high = wire.INIT_IN.unpack_from(
        body.ljust(wire.INIT_IN.size, b"\0")
    )
    offered = low | (high << 32 if low & wire.INIT_EXT else 0)
    if (major, minor) < (wire.MAJOR, wire.MIN_MINOR) or offered & _NEEDED != _NEEDED:
        raise TooOldError(f"the kernel speaks FUSE {major}.{minor}, too old for this session")
    io = wanted_io if offered & wire.PASSTHROUGH else CACHED
    flags = offered & _sum(_WANTED | _OF_MODE[io])
    if not writeback:
        flags &= ~wire.WRITEBACK_CACHE
    if not export:
        flags &= ~wire.EXPORT_SUPPORT
    if not has_acls:
        flags &= ~wire.POSIX_ACL
    agreement = Agreement(min(minor, wire.MINOR), flags, io)
    depth = _STACK_DEPTH if agreement.has(wire.PASSTHROUGH) else 0
    reply = wire.INIT_OUT.pack(
        wire.MAJOR, agreement.minor, readahead, flags & _LOW, _MAX_BACKGROUND, _CONGESTION,
        MAX_WRITE, 1, MAX_WRITE // 4096, 0, flags >> 32, depth,
    )  # fmt: skip
    return agreement, reply


def choose_io(plan: MountPlan) -> MountPlan:
    """Return `plan` with its way of data decided: `io`, and `writeback` of its options.

    `auto` is cached data without the write-back cache. With that cache, every close makes the
    kernel ask for the attributes again at the next stat (fuse_flush); with passthrough, every
    read does, and every open asks. Programs read much more than they write:
    docs/explanation/performance.md has the figures.

    Raises:
        MountError: if passthrough is asked for and can not be had.
    """
    if plan.io == PASSTHROUGH and (problem := passthrough_problem()):
        raise MountError(f"--io passthrough {problem}")
    io = CACHED if plan.io == "auto" else plan.io
    writeback = plan.options.writeback
    if writeback is None:
        writeback = plan.io == CACHED
    return replace(plan, io=io, options=replace(plan.options, writeback=writeback))


def passthrough_problem() -> str | None:
    """Say why data can not go past the daemon here; None if it can.

    FUSE_DEV_IOC_BACKING_OPEN asks for CAP_SYS_ADMIN in the initial user namespace.
    """
    release = os.uname().release.split(".")
    if tuple(int(part) for part in release[:2] if part.isdecimal()) < _PASSTHROUGH_RELEASE:
        return f"needs Linux 6.9, this is {os.uname().release}"
    with open("/proc/self/uid_map") as uid_map:
        ids = [line.split() for line in uid_map]
    with open("/proc/self/status") as status:
        effective = next(line.split()[1] for line in status if line.startswith("CapEff:"))
    if ids != _ALL_IDS or not int(effective, 16) >> _CAP_SYS_ADMIN & 1:
        return "needs CAP_SYS_ADMIN outside of user namespaces"
    return None


def _sum(flags: dict[str, int]) -> int:
    total = 0
    for flag in flags.values():
        total |= flag
    return total
