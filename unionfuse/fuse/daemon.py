"""The process that serves one mount, from the first descriptor to the last."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import signal
import subprocess
import sys
from logging.handlers import SysLogHandler
from typing import TYPE_CHECKING, Protocol

from unionfuse.fuse import mounting, table
from unionfuse.fuse.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unionfuse.fuse.options import MountPlan
    from unionfuse.union.fs import UnionFs

log = logging.getLogger(__name__)

_SYSLOG = "/dev/log"
_WRITE_BACK_SECONDS = 30
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_MAX_OPEN_DIRS = 1024
_MAX_BACKING_FDS = 4096


class Session(Protocol):
    """What answers the requests of one connection."""

    name: str

    async def serve(self) -> None:
        """Answer requests until the filesystem is unmounted or `stop` is called."""

    def stop(self) -> None:
        """Make `serve` return."""

    def close(self) -> None:
        """Close the connection."""

    def statistics(self) -> str:
        """Return figures about the session, in one line."""


def start(plan: MountPlan) -> None:
    """Make the mount of `plan` and serve it.

    In the foreground this returns when it is unmounted; otherwise as soon as it serves, with
    a process of its own behind it.

    Raises:
        MountError: if it can not be made.
    """
    if plan.foreground:
        _run(plan, lambda: None)
        return
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os.close(writer)
        with open(reader, "rb") as pipe:
            answer = pipe.read()
        if answer != _SERVING:
            raise MountError(os.fsdecode(answer) or "the daemon ended without a word")
        # Until the kernel has asked once, it takes the root for root's, and its owner may not
        # even set an ACL there.
        with contextlib.suppress(OSError):
            os.stat(plan.mountpoint)
        return
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
    os.chdir("/")
    _close_inherited(writer)
    waiting = [writer]  # empty once the parent was told: the number may mean another file then

    def tell(answer: bytes) -> None:
        while waiting:
            fd = waiting.pop()
            with contextlib.suppress(BrokenPipeError):
                os.write(fd, answer)
            os.close(fd)

    def on_ready() -> None:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        tell(_SERVING)

    try:
        _run(plan, on_ready)
    except MountError as err:
        tell(os.fsencode(str(err)))
        return 1
    except BaseException as err:
        log.exception("the daemon ends")
        tell(os.fsencode(f"{type(err).__name__}: {err}"))
        return 1
    return 0


def _close_inherited(kept: int) -> None:
    """Close what the caller had open but the standard streams and `kept`.

    A lock or a pipe of a script must not live as long as the mount.
    """
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd > 2 and fd != kept:
            with contextlib.suppress(OSError):  # the one that listed them is closed already
                os.close(fd)


def _run(plan: MountPlan, on_ready: Callable[[], None]) -> None:
    # Imported here: arguments are parsed and refused without the weight of trio and pyfuse3.
    import trio

    from unionfuse.layer.workdir import WorkdirError
    from unionfuse.union.fs import UnionFs
    from unionfuse.union.state import Options

    _configure_logging(plan)
    _raise_limits()
    os.umask(0)  # modes are the callers' to choose
    options = Options(
        sync=not plan.options.volatile,
        nodeid_is_ino=plan.session != "kernel",
        max_backing_fds=_share(_MAX_BACKING_FDS),
    )
    try:
        fs = UnionFs.from_paths(
            list(plan.lowers), plan.upper, plan.workdir, options, _share(_MAX_OPEN_DIRS)
        )
    except WorkdirError as err:
        raise MountError(str(err)) from None
    except OSError as err:
        raise MountError(_of_path(err)) from None
    # A signal that comes before it is obeyed would leave a dead mount: it waits until then.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    with contextlib.closing(fs), _mounted(plan) as fuse_fd:
        session = _make_session(plan, fs, fuse_fd, on_ready)
        with contextlib.closing(session), _recorded(plan, session.name):
            trio.run(_serve, session, plan.mountpoint)


def _make_session(
    plan: MountPlan, fs: UnionFs, fuse_fd: int, on_ready: Callable[[], None]
) -> Session:
    if plan.session == "kernel":
        from unionfuse.fuse.kernel_session import KernelSession

        return KernelSession(fs, fuse_fd, plan.options, on_ready)
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
    record: Path | None = table.write_record(plan, session)
    try:
        yield
    finally:
        if record is not None:
            record.unlink(missing_ok=True)


async def _serve(session: Session, mountpoint: bytes) -> None:
    import trio

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_obey_signals, session, mountpoint)
        await session.serve()
        nursery.cancel_scope.cancel()


async def _obey_signals(session: Session, mountpoint: bytes) -> None:
    """SIGTERM and SIGINT unmount, SIGUSR1 logs statistics."""
    import trio

    with trio.open_signal_receiver(*_SIGNALS) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        async for number in signals:
            if number == signal.SIGUSR1:
                log.info("%s", session.statistics())
                continue
            # In a thread: the unmount itself makes requests, which have to be answered.
            if not await trio.to_thread.run_sync(_unmount, mountpoint):
                session.stop()


def _unmount(mountpoint: bytes) -> bool:
    """Unmount; a busy mount leaves the tree and the daemon ends all the same: then False."""
    try:
        mounting.unmount(mountpoint)
    except MountError as err:
        log.warning("%s", err)
        _write_back(mountpoint)
        with contextlib.suppress(MountError):
            mounting.unmount(mountpoint, lazy=True)
        return False
    return True


def _write_back(mountpoint: bytes) -> None:
    """Have the kernel send the dirty pages of shared mappings, which go with the connection.

    By a process of its own: this one must not use its own mount.
    """
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            ["sync", "-f", mountpoint],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_WRITE_BACK_SECONDS,
        )


def _configure_logging(plan: MountPlan) -> None:
    """Log to the file given, to stderr in the foreground, else to the system's log."""
    handler: logging.Handler = logging.NullHandler()
    if plan.log is not None:
        handler = logging.FileHandler(os.fsdecode(plan.log))
    elif plan.foreground:
        handler = logging.StreamHandler()
    elif os.path.exists(_SYSLOG):
        with contextlib.suppress(OSError):
            handler = SysLogHandler(_SYSLOG)
    handler.setFormatter(
        logging.Formatter("%(asctime)s unionfuse[%(process)d] %(levelname)s %(message)s")
    )
    logging.basicConfig(level=logging.DEBUG if plan.debug else logging.INFO, handlers=[handler])


def _raise_limits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _share(most: int) -> int:
    """Return how many descriptors one cache may hold: a quarter of what is allowed, at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(16, min(most, soft // 4))


def _of_path(err: OSError) -> str:
    problem = os.strerror(err.errno or errno.EIO)
    if err.filename is None:
        return problem
    return f"{os.fsdecode(err.filename)}: {problem}"
