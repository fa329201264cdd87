"""Have a command line run by a child of a fork server, if there is one.

Everything is done with what an interpreter has loaded in any case: each further module would cost
a part of what is won.
"""

from __future__ import annotations

import _socket  # `socket` loads `selectors`, `enum` and `re`
import binascii
import fcntl
import marshal
import os
import sys
import time

from unionfuse.cli.forkserver import identity
from unionfuse.cli.forkserver.forwarding import Forwarding
from unionfuse.fuse import rundir

DECLINED = 0  # in place of the pid of a process that does it
SECONDS = "UNIONFUSE_FORKSERVER_SECONDS"
"""The variable that says how long a server waits for the next request; 0: there is none."""
_DEFAULT_SECONDS = 30.0
_GREETING_SECONDS = 3.0  # a server that is frozen, or worse, says nothing
_MOST_SECONDS = 86_400.0
_TITLE_ROOM = 8192
_PREFIX = "forkserver-"
_START = (
    "import sys; sys.path[:] = sys.argv[4:]; "
    "from unionfuse.cli.forkserver.server import main; main()"
)


class Place:
    """Where the server for processes that are as this one is found, if there is one.

    Attributes:
        program: what it runs, one of `server.PROGRAMS`.
        path: a file that the server holds locked; its socket is beside it.
    """

    def __init__(self, directory: str, program: str) -> None:
        facts = f"{identity.of_process(os.getpid())}\n{identity.of_program()}"
        self.program = program
        self.path = f"{directory}/{_PREFIX}{program}-{binascii.crc32(os.fsencode(facts)):08x}"

    @property
    def socket(self) -> str:
        """Path of the server's socket."""
        return f"{self.path}.socket"


def run(program: str, argv: list[str]) -> int | None:
    """Have a server run a command line of `program`, as if this process did.

    If there is none, one is started for those who come later, provided that another came lately.

    Returns:
        The exit status; None if it was not run.
    """
    if waiting_seconds() <= 0:
        return None
    directory = rundir.find()
    if directory is None:
        return None
    try:
        place = Place(directory, program)
    except OSError:
        return None
    status = ask(place, argv)
    if status is None:
        offer(place)
    return status


def waiting_seconds() -> float:
    """Return how long a server waits for the next request before it ends."""
    try:
        seconds = float(os.environ.get(SECONDS, _DEFAULT_SECONDS))
    except ValueError:
        return _DEFAULT_SECONDS
    return seconds if seconds < _MOST_SECONDS else _DEFAULT_SECONDS  # nan is not, either


def ask(place: Place, argv: list[str]) -> int | None:
    """Have the server at `place` run a command line, and pass on the signals that come meanwhile.

    Returns:
        Its exit status; None if it was not run: no server is there, or it can not.
    """
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    signals = Forwarding()
    try:
        pid = _accepted(server, place, argv)
        if pid is None:
            return None
        signals.begin(pid)
        # From here on it may have been done: to do it again would be wrong.
        try:
            status = server.recv(1)
        except OSError:
            status = b""
    finally:
        signals.end()
        server.close()
    if not status:
        signals.die()
        sys.stderr.write("unionfuse: the process that did the work has ended without a word\n")
        return 1
    return status[0]


def _accepted(server: _socket.socket, place: Place, argv: list[str]) -> int | None:
    """Return the process that does what is asked for; None if none does."""
    cwd = -1
    try:
        server.settimeout(_GREETING_SECONDS)
        server.connect(place.socket)
        # before anything is sent: what somebody waits for the end of would be held in the queue
        server.recv(1)
        server.settimeout(None)
        cwd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        request = (identity.of_program(), argv, sys.orig_argv, dict(os.environ))
        fds = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2, cwd))
        server.sendmsg([marshal.dumps(request)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
        return int.from_bytes(server.recv(4), "big") or None
    except OSError:
        return None
    finally:
        if cwd >= 0:
            os.close(cwd)


def offer(place: Place) -> None:
    """Start a server if it would have been asked twice within the time that it waits.

    Most engines come to stay in one mount namespace. One that makes a new one each time, as buildah
    without root does, would never meet its server again.
    """
    now = time.time()
    try:
        before = os.stat(place.path).st_mtime
    except OSError:
        before = 0.0
    try:
        fd = os.open(place.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of a server that is getting ready
            os.utime(fd)
        finally:
            os.close(fd)
        if now - before < waiting_seconds():
            _start(place)
        else:
            _sweep(os.path.dirname(place.path), now)
    except OSError:
        return  # it only would have been faster


def _start(place: Place) -> None:
    from unionfuse.syscalls import descriptors

    if os.fork():
        return
    try:
        os.setsid()
        os.chdir("/")
        descriptors.silence()
        descriptors.close_all_but()
        room = " " * _TITLE_ROOM  # for the command lines of the children
        what = (place.program, place.path, room, *sys.path)
        os.execv(sys.executable, [sys.executable, "-c", _START, *what])
    finally:
        os._exit(1)


def _sweep(directory: str, now: float) -> None:
    """Remove what engines have left that came once."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        is_old = now - os.stat(path).st_mtime > 10 * waiting_seconds()
        if name.startswith(_PREFIX) and "." not in name and is_old:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            except BlockingIOError:
                pass  # its server lives
            finally:
                os.close(fd)
