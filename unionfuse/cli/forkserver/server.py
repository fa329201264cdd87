"""Serve: load what mounts need, then fork a child for each request.

The server has one thread and does nothing but fork, so a child is what a fresh interpreter would be
when it has imported everything. It is the child that looks who asks: a server can not be held up.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import marshal
import os
import select
import signal
import socket
import sys
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from unionfuse.cli.forkserver import cgroup, client, identity
from unionfuse.syscalls import title

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS = {"overlay": "unionfuse.cli.overlay_served", "unionfuse": "unionfuse.cli.served"}
"""By the name of a program, the module whose `load` gets ready for its `run`."""

_NAME = "unionfuse-forkserver"
_MOST = 1 << 20  # bytes of a request
_N_FDS = 4
_SETTLE_SECONDS = 0.3
_BACKLOG = 64
_UCRED = Struct("iII")  # unix(7): pid uid gid


class Request(NamedTuple):
    """What a client asks for.

    Attributes:
        program: what its interpreter is, as `identity` tells.
        argv: what to run, without the name of the program.
        command_line: what `ps` showed of the client.
        environment: of the client.
    """

    program: str
    argv: list[str]
    command_line: list[str]
    environment: dict[str, str]


class Server:
    """The fork server of one identity."""

    def __init__(self, path: str, run: Callable[[list[str]], int]) -> None:
        """Serve at `path` (see `client.Place`); children run a command line by `run`.

        Raises:
            BlockingIOError: if there is one already.
        """
        self._run = run
        self._path = path
        # as the client will find them; what follows changes some
        self._process = identity.of_process(os.getpid())
        self._program = identity.of_program()
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._seconds = client.waiting_seconds()
        self._sources = _sources()

    def serve(self) -> None:
        """Fork for each request, until none has come for long, or the program has changed."""
        path = f"{self._path}.socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            listener.listen(_BACKLOG)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
            try:
                while self._is_asked(listener) and _sources() == self._sources:
                    self._answer(listener)
            finally:
                os.unlink(path)
                os.unlink(self._path)

    def _is_asked(self, listener: socket.socket) -> bool:
        return bool(select.select([listener], [], [], self._seconds)[0])

    def _answer(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                is_child = os.fork() == 0
            except OSError:
                return  # the client does it itself
            if is_child:
                status = 1
                try:
                    listener.close()
                    os.close(self._lock)
                    status = self._serve_one(connection)
                finally:
                    os._exit(status)

    def _serve_one(self, connection: socket.socket) -> int:
        """Be the child: do what is asked for, and tell the exit status."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            connection.send(b"\0")  # the client sends nothing to a server that does not answer
            request, fds = _received(connection)
            accepts = self._can_be(connection, request)
            if accepts:
                _become(request, fds)
                _end_with(connection)
        except (OSError, ValueError, TypeError):
            accepts = False
        connection.send((os.getpid() if accepts else client.DECLINED).to_bytes(4, "big"))
        if not accepts:
            return 1
        try:
            status = self._run(request.argv)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([status & 0xFF]))
        return status

    def _can_be(self, connection: socket.socket, request: Request) -> bool:
        """Tell whether this child may stand in for the process that asks."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, _, _ = _UCRED.unpack(credentials)
        return (
            identity.of_process(pid) == self._process
            and request.program == self._program
            and cgroup.join_that_of(pid)
        )


def _received(connection: socket.socket) -> tuple[Request, list[int]]:
    data, fds, flags, _ = socket.recv_fds(connection, _MOST, _N_FDS)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(fds) != _N_FDS:
        raise ValueError("a request that is not whole")
    return Request(*marshal.loads(data)), fds


def _become(request: Request, fds: list[int]) -> None:
    """Take over what the client has handed over."""
    *streams, cwd = fds
    os.fchdir(cwd)
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    for fd in fds:
        os.close(fd)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv[1:] = request.argv
    title.write(request.command_line)


def _end_with(connection: socket.socket) -> None:
    """Let the kernel kill this process when the client is gone, killed itself perhaps.

    Nothing else comes from the client. What this process forks is not killed.
    """
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(connection, fcntl.F_GETFL)
    fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC)


def _sources() -> dict[str, int]:
    """Return when each loaded file of the program was changed, in ns: no child mixes versions."""
    found = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name.partition(".")[0] == "unionfuse" and path:
            found[path] = os.stat(path).st_mtime_ns
    return found


def main() -> None:
    """Be a server: called by `client.offer`, with the name of a program and a path."""
    gc.disable()
    program, path = sys.argv[1:3]
    title.write([_NAME])
    if client.Place(os.path.dirname(path), program).path != path:
        return  # nobody would find it
    # The command that has just begun without a server goes first.
    select.select([], [], [], _SETTLE_SECONDS)
    loaded = importlib.import_module(PROGRAMS[program])
    loaded.load()
    try:
        server = Server(path, loaded.run)
    except BlockingIOError:
        return
    gc.collect()
    gc.freeze()
    server.serve()
