"""Serve one session: from the first request, to signals, to the unmount.

To import trio takes longer than all that a mount needs before, and as much memory as a daemon has
without it. So a session that can answer without it does so while a thread imports it. That of a
container does so alone, until something has to wait or much is asked: most end before that.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from typing import Protocol, runtime_checkable

from unionfuse.fuse import mounting
from unionfuse.fuse.errors import MountError
from unionfuse.fuse.signals import OBEYED, noticed

log = logging.getLogger(__name__)

_WRITE_BACK_SECONDS = 30
# How long the import may keep the interpreter from a request that has come.
_SWITCH_SECONDS = 0.0001


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


@runtime_checkable
class InlineSession(Session, Protocol):
    """A session that does not need trio to answer."""

    def serve_alone(self, signal_fd: int) -> bool:
        """Answer requests until `signal_fd` can be read, or `serve` would do better.

        Returns:
            Whether it is over: nothing is left to serve.
        """

    def serve_until(self, ready_fd: int) -> None:
        """Answer requests until `ready_fd` can be read; what would wait is left to `serve`."""


def serve(session: Session, mountpoint: bytes, *, alone: bool = False) -> None:
    """Answer requests until the filesystem is unmounted or a signal ends it.

    Args:
        session: what answers them.
        mountpoint: of the filesystem.
        alone: not to import trio before it is wanted, if the session can do without: for mounts of
            which there are many, and that most often end before that.

    Preconditions:
        `signals.hold` has been called.

    Raises:
        MountError: if the session can not serve this mount.
    """
    if isinstance(session, InlineSession):
        if alone:
            with noticed() as signal_fd:
                is_over = session.serve_alone(signal_fd)
            if is_over:
                return
        _serve_while_importing(session)
    import trio

    # What is there by now stays: it is not to be looked through again and again.
    gc.freeze()
    gc.enable()
    try:
        trio.run(_serve, session, mountpoint)
    except* MountError as group:
        problem = _first(group)
    else:
        return
    raise problem


def _first(group: BaseExceptionGroup[MountError]) -> MountError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, MountError), "the group holds nothing else"
    return found


def _serve_while_importing(session: InlineSession) -> None:
    """Let `session` answer while a thread imports trio."""
    imported_fd = os.eventfd(0, os.EFD_CLOEXEC)
    failures: list[BaseException] = []

    def import_trio() -> None:
        try:
            import trio  # noqa: F401 - for whoever imports it next
        except BaseException as err:
            failures.append(err)
        finally:
            os.eventfd_write(imported_fd, 1)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    thread = threading.Thread(target=import_trio, name="import")
    thread.start()
    try:
        session.serve_until(imported_fd)
    finally:
        thread.join()
        sys.setswitchinterval(interval)
        os.close(imported_fd)
    if failures:
        raise failures[0]


async def _serve(session: Session, mountpoint: bytes) -> None:
    import trio

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_obey_signals, session, mountpoint)
        await session.serve()
        nursery.cancel_scope.cancel()


async def _obey_signals(session: Session, mountpoint: bytes) -> None:
    """SIGTERM and SIGINT unmount, SIGUSR1 logs statistics."""
    import trio

    with trio.open_signal_receiver(*OBEYED) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OBEYED)
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
    import subprocess

    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            ["sync", "-f", mountpoint],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_WRITE_BACK_SECONDS,
        )
