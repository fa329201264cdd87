"""Pass the signals that come to a client on to the process that does its work."""

from __future__ import annotations

# `signal`, which alone typeshed knows, makes enumerations of its numbers: that takes 2 ms
import _signal  # type: ignore[import-not-found]
import os

# What stops and continues a job is between it and its shell; the rest is of this process itself.
_KEPT = frozenset(
    {_signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGURG}
    | {_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU, _signal.SIGCONT}
    | {_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGILL, _signal.SIGFPE, _signal.SIGTRAP}
    | {_signal.SIGABRT}
)


class Forwarding:
    """The signals of this process, while another one works for it."""

    def __init__(self) -> None:
        """Keep what comes, until `begin` says where it goes."""
        self._pid = 0
        self._came: list[int] = []
        self._before = {}
        for number in _signal.valid_signals() - _KEPT:
            handler = _signal.getsignal(number)
            if handler is not None and handler != _signal.SIG_IGN:
                self._before[number] = _signal.signal(number, self._take)

    def begin(self, pid: int) -> None:
        """Pass all that has come and that comes on to `pid`."""
        self._pid = pid
        for number in self._came:
            self._send(number)

    def end(self) -> None:
        """Have signals do what they did before; what has come and was not passed on does it now."""
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        if not self._pid:
            for number in self._came:
                os.kill(os.getpid(), number)

    def die(self) -> None:
        """Die of the last signal that was passed on, if there was one: the other process has."""
        if self._came:
            _signal.signal(self._came[-1], _signal.SIG_DFL)
            os.kill(os.getpid(), self._came[-1])

    def _take(self, number: int, _: object) -> None:
        self._came.append(number)
        if self._pid:
            self._send(number)

    def _send(self, number: int) -> None:
        try:  # noqa: SIM105 - contextlib is not loaded yet, nor to be
            os.kill(self._pid, number)
        except OSError:
            pass  # it has just ended, as will be told
