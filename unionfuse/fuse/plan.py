"""Check a mount before it is made: every mistake gets its one line here."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from unionfuse.fuse.errors import MountError
from unionfuse.layer.stack import is_within
from unionfuse.record import replace
from unionfuse.syscalls.mount import MS_RDONLY

if TYPE_CHECKING:
    from unionfuse.fuse.options import MountOptions, MountPlan


def make_plan(plan: MountPlan, *, nested: bool = False) -> MountPlan:
    """Return `plan` with absolute paths and a workdir, after checking that it can work.

    With `nested` lowers may hold the upper, the workdir and the mountpoint, as with fuse-overlayfs,
    and be below the mountpoint.

    Raises:
        MountError: naming the path and what is wrong with it.
    """
    if plan.session == "pyfuse3" and plan.io == "passthrough":
        raise MountError("--io passthrough needs --session kernel: pyfuse3 has cached data only")
    if plan.session == "pyfuse3" and plan.options.nfs_export:
        raise MountError("nfs_export=on needs --session kernel")
    if not plan.lowers or b"" in plan.lowers:
        raise MountError("an empty lower layer: give LOWER[:LOWER...]")
    lowers = tuple(_directory(lower, "lower layer") for lower in plan.lowers)
    mountpoint = _directory(plan.mountpoint, "mountpoint")
    if plan.upper is None:
        checked = replace(plan, lowers=lowers, mountpoint=mountpoint, workdir=None)
        checked = replace(checked, options=_read_only(plan.options))
    else:
        upper = _directory(plan.upper, "upper")
        workdir = _workdir(upper, plan.workdir)
        checked = replace(plan, lowers=lowers, mountpoint=mountpoint, upper=upper, workdir=workdir)
        _check_upper(lowers, upper, workdir, nested=nested)
    _check_mountpoint(checked, nested=nested)
    return checked


def nested_in(plan: MountPlan) -> tuple[bytes, bytes] | None:
    """Return an upper or a workdir, and the lower that holds it; None: none does."""
    for path in (plan.upper, plan.workdir):
        for lower in plan.lowers:
            if path is not None and is_within(path, lower):
                return path, lower
    return None


def refuse_plugins(lowers: tuple[bytes, ...]) -> None:
    """Refuse the lowers that fuse-overlayfs leaves to its plugins, `//NAME/DATA/PATH`.

    Raises:
        MountError: naming the lower.
    """
    for lower in lowers:
        if lower.startswith(b"//"):
            raise MountError(f"plugins are not supported: {os.fsdecode(lower)}")


def _read_only(options: MountOptions) -> MountOptions:
    if options.read_only:
        return options
    return replace(options, flags=options.flags | MS_RDONLY, words=(*options.words, "ro"))


def _directory(path: bytes, what: str) -> bytes:
    """Return the absolute path of an existing directory, symlinks resolved."""
    try:
        real = os.path.realpath(path, strict=True)
        os.statvfs(real)  # a dead mount may still be known by name
        if not os.path.isdir(real):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as err:
        if err.errno == errno.ENOTCONN:
            problem = "a dead FUSE mount is there: unmount it first (unionfuse umount --lazy)"
        else:
            problem = os.strerror(err.errno or errno.EIO)
        raise MountError(f"{what} {os.fsdecode(path)}: {problem}") from None
    return real


def _workdir(upper: bytes, given: bytes | None) -> bytes:
    path = os.path.abspath(upper + b".work" if given is None else given)
    parent = _directory(os.path.dirname(path), "directory of the workdir")
    if os.path.lexists(path):
        path = _directory(path, "workdir")
    else:
        path = os.path.join(parent, os.path.basename(path))
    device = os.stat(path if os.path.exists(path) else parent).st_dev
    if os.stat(upper).st_dev != device:
        raise MountError(
            f"upper {os.fsdecode(upper)} and workdir {os.fsdecode(path)} are on different "
            "filesystems: give a --workdir on that of the upper"
        )
    return path


def _check_upper(lowers: tuple[bytes, ...], upper: bytes, workdir: bytes, *, nested: bool) -> None:
    if upper in lowers:
        raise MountError(f"{os.fsdecode(upper)} is given as a lower layer and as the upper")
    if is_within(upper, workdir) or is_within(workdir, upper):
        raise MountError("upper and workdir must not be one inside the other")
    for lower in lowers:
        for path, what in ((upper, "upper"), (workdir, "workdir")):
            if is_within(lower, path) or (is_within(path, lower) and not nested):
                raise MountError(
                    f"{what} {os.fsdecode(path)} and lower layer {os.fsdecode(lower)} must not "
                    "be one inside the other"
                )


def _check_mountpoint(plan: MountPlan, *, nested: bool) -> None:
    layers = [] if nested else [(lower, "lower layer") for lower in plan.lowers]
    layers += [(path, "upper") for path in (plan.upper,) if path is not None]
    layers += [(path, "workdir") for path in (plan.workdir,) if path is not None]
    for path, what in layers:
        if is_within(plan.mountpoint, path):
            raise MountError(
                f"mountpoint {os.fsdecode(plan.mountpoint)} is inside the {what} "
                f"{os.fsdecode(path)}: the union would contain itself"
            )
        if is_within(path, plan.mountpoint):
            raise MountError(
                f"{what} {os.fsdecode(path)} is inside the mountpoint "
                f"{os.fsdecode(plan.mountpoint)}: the mount would hide it"
            )
