"""The process that serves one mount, from the first descriptor to the last."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sys
from typing import TYPE_CHECKING

from unionfuse.fuse import mounting, signals
from unionfuse.fuse.errors import MountError
from unionfuse.record import replace
from unionfuse.syscalls import descriptors, fdpath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unionfuse.fuse.options import Ids, MountPlan
    from unionfuse.fuse.serving import Session
    from unionfuse.layer.layers import Layers
    from unionfuse.union.fs import UnionFs
    from unionfuse.union.ids import IdMap

# What `auto` stands for where the kernel is new enough for the kernel session.
_AUTO = "kernel"
_KERNEL_SESSION_SINCE = (5, 4)  # FUSE 7.31
_MAX_OPEN_DIRS = 1024
_MAX_BACKING_FDS = 4096


def load() -> None:
    """Import what serves a mount in a kernel session, so that a child need not."""
    import unionfuse.fuse.kernel.session
    import unionfuse.fuse.logs
    import unionfuse.fuse.plan
    import unionfuse.fuse.serving
    import unionfuse.fuse.table
    import unionfuse.fuse.words
    import unionfuse.layer.layers
    import unionfuse.union.kinds  # noqa: F401 - to have it


def start(plan: MountPlan) -> int:
    """Make the mount of `plan` and serve it.

    In the foreground this returns when it is unmounted; otherwise when `plan.returns` says, with
    a process of its own behind it.

    Returns:
        The pid of the process that serves it.

    Raises:
        MountError: if it can not be made.
    """
    if plan.foreground:
        _run(plan, lambda: None)
        return os.getpid()
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        os.close(writer)
        with open(reader, "rb") as pipe:
            answer = pipe.read()
        if answer != _SERVING:
            raise MountError(os.fsdecode(answer) or "the daemon ended without a word")
        # Until the kernel has asked once, it takes the root for root's, and its owner may not
        # even set an ACL there.
        if plan.returns != "mounted":
            with contextlib.suppress(OSError):
                os.stat(plan.mountpoint)
        return pid
    os.close(reader)
    status = 1
    try:
        status = _run_detached(plan, writer)
    finally:
        os._exit(status)


_SERVING = b"\0"


def _run_detached(plan: MountPlan, writer: int) -> int:
    """Be the daemon: tell over `writer` whether it serves; return the exit status."""
    os.setsid()
    descriptors.close_all_but(writer, *plan.kept_fds)
    waiting = [writer]  # empty once the parent was told: the number may mean another file then

    def tell(answer: bytes) -> None:
        while waiting:
            fd = waiting.pop()
            with contextlib.suppress(BrokenPipeError):
                os.write(fd, answer)
            os.close(fd)

    def on_ready() -> None:
        if not waiting:
            return
        descriptors.silence()
        tell(_SERVING)

    try:
        _run(plan, on_ready)
        tell(b"the kernel has ended the connection before anything was asked")
    except MountError as err:
        tell(os.fsencode(str(err)))
        return 1
    except BaseException as err:
        import logging

        logging.getLogger(__name__).exception("the daemon ends")
        tell(os.fsencode(f"{type(err).__name__}: {err}"))
        return 1
    return 0


def _run(plan: MountPlan, on_ready: Callable[[], None]) -> None:
    # Imported when it is needed: an early return does not wait for the weight of the union.
    from unionfuse.fuse.kernel.init import choose_io

    try:
        fdpath.work_in_proc()
    except OSError as err:
        raise MountError(f"/proc: {os.strerror(err.errno or errno.EIO)}") from None
    returns_first = plan.returns == "mounted"
    if not returns_first:
        _configure_log(plan)
    plan = replace(plan, session=_choose_session(plan))
    if plan.session == "kernel":
        plan = choose_io(plan)
    if plan.returns == "settled":
        import trio  # noqa: F401 - what is imported later
    _raise_limits()
    os.umask(0)  # modes are the callers' to choose
    with contextlib.closing(_open_layers(plan)) as layers:
        signals.hold()
        with _mounted(plan) as fuse_fd:
            if returns_first:
                on_ready()
                _configure_log(plan)
            from unionfuse.fuse import serving

            with contextlib.closing(_unite(plan, layers)) as fs:
                session = _make_session(plan, fs, fuse_fd, on_ready)
                with contextlib.closing(session), _recorded(plan, session.name):
                    serving.serve(session, plan.mountpoint, alone=returns_first)


def _configure_log(plan: MountPlan) -> None:
    from unionfuse.fuse import logs  # to import logging takes as long as to mount

    logs.configure(plan)


def _open_layers(plan: MountPlan) -> Layers:
    from unionfuse.layer.layers import Layers
    from unionfuse.layer.workdir import WorkdirError

    try:
        return Layers.open(
            list(plan.lowers),
            plan.upper,
            plan.workdir,
            max_open_dirs=_share(_MAX_OPEN_DIRS),
            private_lowers=plan.io == "passthrough",  # the kernel itself reads them
            mountpoint=plan.mountpoint,
            lock_timeout=plan.lock_seconds,
        )
    except WorkdirError as err:
        raise MountError(str(err)) from None
    except OSError as err:
        raise MountError(_of_path(err)) from None


def _unite(plan: MountPlan, layers: Layers) -> UnionFs:
    from unionfuse.union.kinds import unite
    from unionfuse.union.state import Options

    options = Options(
        sync=not plan.options.volatile,
        sync_all=plan.options.fsync == "strict",
        marks_volatile=plan.options.fsync == "volatile",
        nodeid_is_ino=plan.session == "pyfuse3",
        max_backing_fds=_share(_MAX_BACKING_FDS),
        metacopy=plan.options.metacopy,
        redirect_dir=plan.options.redirect_dir,
        index=plan.options.index,
        xino=plan.options.xino,
        nfs_export=plan.options.nfs_export,
        uids=_id_map("uid", plan.options.uids, plan.options.shown_uid),
        gids=_id_map("gid", plan.options.gids, plan.options.shown_gid),
        static_nlink=plan.options.static_nlink,
        short_ino=plan.options.short_ino,
        override=plan.options.override,
    )
    try:
        return unite(layers.stack, layers.workdir, options)
    except OSError as err:
        raise MountError(_of_path(err)) from None


def _id_map(kind: str, ranges: Ids, only: int | None) -> IdMap | None:
    if not ranges and only is None:
        return None
    from unionfuse.union.ids import IdMap, overflow_id

    return IdMap(ranges, overflow_id(kind), only)


def _choose_session(plan: MountPlan) -> str:
    """Return the session that serves `plan`: the one asked for, or what `auto` is here."""
    if plan.session != "auto":
        return plan.session
    release = os.uname().release
    chosen = _AUTO
    if plan.io == "passthrough":  # has no other
        chosen = "kernel"
    elif _version(release) < _KERNEL_SESSION_SINCE:
        chosen = "pyfuse3"
    return chosen


def _version(release: str) -> tuple[int, int]:
    """Return the first two numbers of what uname(2) calls the release."""
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0].partition("-")[0].partition("+")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)


def _make_session(
    plan: MountPlan, fs: UnionFs, fuse_fd: int, on_ready: Callable[[], None]
) -> Session:
    if plan.session == "kernel":
        from unionfuse.fuse.kernel.session import KernelSession

        return KernelSession(fs, fuse_fd, plan, on_ready)
    from unionfuse.fuse.pyfuse3_session import Pyfuse3Session

    return Pyfuse3Session(fs, fuse_fd, plan.options, on_ready)


@contextlib.contextmanager
def _mounted(plan: MountPlan) -> Iterator[int]:
    """Mount; if the body fails, do not leave a dead mount behind."""
    fuse_fd = mounting.mount(plan.mountpoint, plan.options)
    try:
        yield fuse_fd
    except BaseException:
        with contextlib.suppress(MountError):
            mounting.unmount(plan.mountpoint, lazy=True)
        raise


@contextlib.contextmanager
def _recorded(plan: MountPlan, session: str) -> Iterator[None]:
    from unionfuse.fuse import table

    record = table.write_record(plan, session)
    try:
        yield
    finally:
        if record is not None:
            table.remove_record(record)


def _raise_limits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _share(most: int) -> int:
    """Return how many descriptors one cache may hold: a quarter of what is allowed, at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(16, min(most, soft // 4))


def _of_path(err: OSError) -> str:
    problem = err.strerror or os.strerror(errno.EIO)
    if err.filename is None:
        return problem
    return f"{os.fsdecode(err.filename)}: {problem}"
