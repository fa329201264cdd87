"""Be the terminal, or the pipes, of a container that conmon holds.

conmon's socket is a SOCK_SEQPACKET: each message from it is one byte that names the stream and
then what was written to it; what is sent to it is the container's stdin. Sizes of the terminal
are written to the FIFO `ctl` beside it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from typing import TYPE_CHECKING, Any

from unionfuse.container import processes
from unionfuse.container.errors import ContainerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unionfuse.container.processes import Process

_MESSAGE = 8192 + 1  # conmon's STDIO_BUF_SIZE, and the byte before it
_CHUNK = 8192
_STDERR = 3  # conmon's STDERR_PIPE
_DETACH = b"\x10\x11"  # ctrl-p ctrl-q, docker's
_NOT_PROXIED = frozenset(
    {signal.SIGCHLD, signal.SIGPIPE, signal.SIGKILL, signal.SIGSTOP, signal.SIGWINCH}
    | {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGURG}
    | {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGABRT}
)


def connect(bundle: Path) -> socket.socket:
    """Connect with the conmon of the container whose bundle this is.

    Raises:
        ContainerError: if there is none.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        fd = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{fd}/attach")  # the path itself may be too long
        finally:
            os.close(fd)
    except OSError as err:
        connection.close()
        raise ContainerError(f"cannot attach to the container: {err.strerror}") from None
    return connection


class Attachment:
    """This process's standard streams, tied to a container's."""

    def __init__(
        self, bundle: Path, init: Process | None, *, has_tty: bool, takes_input: bool
    ) -> None:
        """Connect; nothing passes yet.

        Args:
            bundle: of the container.
            init: what gets the signals that this process gets.
            has_tty: whether the container has a terminal.
            takes_input: whether our stdin is to be its stdin.
        """
        self._connection = connect(bundle)
        self._ctl = bundle / "ctl"
        self._init = init
        self._has_tty = has_tty
        self._takes_input = takes_input
        self._is_raw = has_tty and takes_input and os.isatty(0)
        self._detaching = 0  # how much of the keys has been typed

    def run(self, begin: Callable[[], None]) -> bool:
        """Pass on what comes, from before `begin` until the container closes its streams.

        Returns:
            False if the user has detached.
        """
        with self._connection, self._signals() as wakeup, self._raw_terminal():
            self._resize()
            begin()
            self._resize()
            return self._relay(wakeup)

    def _relay(self, wakeup: int) -> bool:
        poller = select.poll()
        poller.register(self._connection, select.POLLIN)
        poller.register(wakeup, select.POLLIN)
        if self._takes_input:
            poller.register(0, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == wakeup:
                    self._pass_signals(os.read(wakeup, 64))
                elif fd == 0:
                    if not self._pass_input(poller):
                        return False
                elif not self._pass_output():
                    return True

    def _pass_output(self) -> bool:
        try:
            message = self._connection.recv(_MESSAGE)
        except ConnectionResetError:
            return False
        if not message:
            return False
        out = 2 if message[0] == _STDERR else 1
        view = memoryview(message)[1:]
        while view:
            try:
                view = view[os.write(out, view) :]
            except BrokenPipeError:
                return True  # the container goes on; its log has it
        return True

    def _pass_input(self, poller: select.poll) -> bool:
        data = os.read(0, _CHUNK)
        if not data:
            poller.unregister(0)
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
            return True
        if self._is_raw and self._asks_to_detach(data):
            return False
        try:
            self._connection.sendall(data)
        except OSError:  # it does not read any more
            poller.unregister(0)
        return True

    def _asks_to_detach(self, data: bytes) -> bool:
        for byte in data:
            expected = _DETACH[self._detaching]
            self._detaching = self._detaching + 1 if byte == expected else byte == _DETACH[0]
            if self._detaching == len(_DETACH):
                return True
        return False

    def _pass_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                self._resize()
            else:
                processes.send(self._init, number)

    def _resize(self) -> None:
        if not (self._has_tty and os.isatty(1)):
            return
        columns, lines = os.get_terminal_size(1)
        with contextlib.suppress(OSError):
            fd = os.open(self._ctl, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, f"1 {lines} {columns}\n".encode())
            finally:
                os.close(fd)

    @contextlib.contextmanager
    def _raw_terminal(self) -> Iterator[None]:
        if not self._is_raw:
            yield
            return
        before = termios.tcgetattr(0)
        tty.setraw(0)
        try:
            yield
        finally:
            sys.stdout.flush()
            termios.tcsetattr(0, termios.TCSADRAIN, before)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[int]:
        """Let signals be read from a descriptor instead of ending this process."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        before: dict[int, Any] = {}
        for number in map(int, signal.valid_signals() - _NOT_PROXIED | {signal.SIGWINCH}):
            before[number] = signal.signal(number, _noted)
        old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(old)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)


def _noted(_: int, __: object) -> None:
    """Do nothing: that the signal came is in the descriptor."""
