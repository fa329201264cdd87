"""The process that serves snapshots: its root, its socket, its end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import signal
import socket
import stat
import threading
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from unionfuse.snapshots.errors import ServerError
from unionfuse.snapshots.service import Service
from unionfuse.snapshots.snapshotter import Snapshotter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.snapshots.mounts import MountWords

log = logging.getLogger(__name__)

_LOCK = "lock"
_THREADS = 8
_GRACE_SECONDS = 10.0  # for requests that have begun
_ENDS = (signal.SIGTERM, signal.SIGINT)
# Of the mount options that the root is part of: mount.fuse3 splits at them.
_SEPARATORS = ":,\\\n"


def run(address: Path, root: Path, words: MountWords) -> signal.Signals:
    """Serve the snapshots of `root` on the socket `address` until a signal ends it; return which.

    Raises:
        ServerError: if it can not start.
        OSError: if the root or the socket can not be used.
    """
    root, address = Path(os.path.abspath(root)), Path(os.path.abspath(address))
    if any(separator in str(root) for separator in _SEPARATORS):
        raise ServerError(f"{root}: its path must hold no comma, colon or backslash")
    # Before any thread is made, so that each of them leaves these signals to us.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with claimed(root), contextlib.closing(Snapshotter(root, words)) as snapshotter:
        server = _listening(address, snapshotter)
        try:
            # What a crash has left; it may be much, and nobody has to wait for it.
            cleaner = threading.Thread(target=_cleanup, args=(snapshotter,), name="cleanup")
            cleaner.start()
            notify("READY=1")
            log.info("serving the snapshots of %s on %s", root, address)
            number = signal.Signals(signal.sigwait(_ENDS))
            notify("STOPPING=1")
        finally:
            server.stop(_GRACE_SECONDS).wait()
            with contextlib.suppress(FileNotFoundError):
                address.unlink()
        cleaner.join()
    log.info("ended by %s", number.name)
    return number


@contextlib.contextmanager
def claimed(root: Path) -> Iterator[None]:
    """Keep others from serving `root`.

    Raises:
        ServerError: if another process does.
    """
    fd = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(f"{root}: another snapshotter serves it") from None
        yield
    finally:
        os.close(fd)


def notify(state: str) -> None:
    """Tell systemd, if it asks to be told (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    if path.startswith("@"):  # an abstract one
        path = "\0" + path[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.connect(path)
            sender.sendall(state.encode())
        except OSError as err:
            log.warning("%s could not be told to systemd: %s", state, err)


def _cleanup(snapshotter: Snapshotter) -> None:
    try:
        snapshotter.cleanup()
    except Exception:
        log.exception("what was left could not be removed")


def _listening(address: Path, snapshotter: Snapshotter) -> grpc.Server:
    _remove_stale(address)
    address.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    server = grpc.server(
        futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="request"),
        handlers=[Service(snapshotter).handler()],
    )
    umask = os.umask(0o177)  # whoever may connect to it may mount and remove
    try:
        server.add_insecure_port(f"unix:{address}")
    except RuntimeError:  # grpc says why on stderr, not here
        raise ServerError(f"{address}: it can not be listened on") from None
    finally:
        os.umask(umask)
    server.start()
    return server


def _remove_stale(address: Path) -> None:
    """Remove a socket that nobody listens on.

    Raises:
        ServerError: if somebody does, or it is something else.
    """
    try:
        if not stat.S_ISSOCK(address.lstat().st_mode):
            raise ServerError(f"{address}: there is something that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(str(address))
        except OSError as err:
            if err.errno != errno.ECONNREFUSED:
                raise ServerError(f"{address}: {err.strerror}") from None
        else:
            raise ServerError(f"{address}: another process listens on it")
    address.unlink()
