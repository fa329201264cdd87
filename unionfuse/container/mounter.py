"""A process that gets ready to mount while its parent still finds out what.

To load what serves a mount takes as long as to load what reads an image. Forked before either, a
child does the one while the parent does the other; and the daemon, forked from the child, has
nothing in memory of what only images need, which counts where there are a hundred of them.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import sys
from typing import TYPE_CHECKING

from unionfuse.container.errors import ContainerError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import NoReturn, Self

_LOCK_SECONDS = 10.0  # an earlier daemon that is just ending has this long

Request = tuple[tuple[bytes, ...], bytes | None, bytes | None, bytes, tuple[str, ...], bytes | None]
"""Lowers, upper, workdir, mountpoint, mount options, and a file for the daemon's pid."""


class Mounter:
    """The child, to be used once, in a `with`."""

    def __init__(self) -> None:
        """Fork; where this process is now, in its namespaces, is where it will mount."""
        sys.stdout.flush()
        sys.stderr.flush()
        request, answer = os.pipe(), os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(request[1])
            os.close(answer[0])
            _answer(request[0], answer[1], parent)
        os.close(request[0])
        os.close(answer[1])
        self._fds = [request[1], answer[0]]

    def mount(self, request: Request) -> int:
        """Have it mount; return the pid of the daemon.

        Raises:
            ContainerError: if it can not.
        """
        writer, reader = self._fds
        with open(writer, "wb", closefd=False) as pipe:
            marshal.dump(request, pipe)
        os.close(writer)
        self._fds.remove(writer)
        with open(reader, "rb", closefd=False) as pipe:
            answer = pipe.read()
        if not answer:
            raise ContainerError("what was to mount the container has ended without a word")
        found = marshal.loads(answer)  # written by our own child
        if isinstance(found, str):
            raise ContainerError(found)
        return int(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        while self._fds:
            os.close(self._fds.pop())
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def serve(request: Request) -> int:
    """Mount; return the pid of the daemon.

    Raises:
        ContainerError: if that is not possible.
    """
    from unionfuse.fuse import daemon
    from unionfuse.fuse.errors import MountError
    from unionfuse.fuse.options import MountPlan
    from unionfuse.fuse.plan import make_plan
    from unionfuse.fuse.words import parse_words

    lowers, upper, workdir, mountpoint, words, pid_file = request
    try:
        options = parse_words(words)
        plan = make_plan(
            MountPlan(
                lowers=lowers,
                upper=upper,
                workdir=workdir,
                mountpoint=mountpoint,
                session=options.session or "auto",
                io=options.io or "auto",
                options=options,
                returns="mounted",
                lock_seconds=_LOCK_SECONDS,
            )
        )
        pid = daemon.start(plan)
    except MountError as err:
        raise ContainerError(str(err)) from None
    if pid_file is not None:
        try:
            with open(pid_file, "w") as file:
                file.write(str(pid))
        except OSError as err:  # nobody would find it
            os.kill(pid, signal.SIGTERM)
            raise ContainerError(f"{os.fsdecode(pid_file)}: {err.strerror}") from None
    return pid


def _answer(request: int, answer: int, parent: int) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from unionfuse.fuse import daemon

        daemon.load()
        with open(request, "rb") as pipe:
            data = pipe.read()
        if data:
            done = _done(marshal.loads(data))
            if isinstance(done, int) and os.getppid() != parent:
                # It was killed meanwhile, and the container may have been removed since.
                os.kill(done, signal.SIGTERM)
            with open(answer, "wb") as pipe:
                pipe.write(marshal.dumps(done))
    finally:
        os._exit(0)


def _done(request: Request) -> int | str:
    try:
        return serve(request)
    except ContainerError as err:
        return str(err)
    except Exception as err:
        return f"{type(err).__name__}: {err}"
