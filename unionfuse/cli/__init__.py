"""The command line: parsing, printing and exit codes; one file a command."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys

# What is done to containers one after the other, and waited for.
_SERVED = frozenset({"exec", "inspect", "logs", "ps", "rm", "run", "start", "stop"})
# What takes the place of a stream that is closed; reading or writing it fails.
_STREAMS = (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_RDONLY))


def main() -> None:
    """Run the command line and exit."""
    gc.disable()  # what imports make is no garbage; the daemon enables it again
    _fill_streams()
    if sys.argv[1:2] and sys.argv[1] in _SERVED and _is_in_foreground():
        from unionfuse.cli.forkserver import client

        status = client.run("unionfuse", sys.argv[1:])
        if status is not None:
            os._exit(status)
    from unionfuse.cli.interrupts import end_at_once

    end_at_once()
    from unionfuse.cli.group import cli

    if isinstance(sys.stdout, io.TextIOWrapper):  # names may have what its encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        cli(prog_name="unionfuse")
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # it was told of when it was written
                stream.flush()
        # Whoever called waits for the end: to take the modules down first takes 10 ms.
        os._exit(end.code)


def _fill_streams() -> None:
    """Put something in the place of streams that the caller has closed.

    Else the next file that is opened, one of the store, would get what is printed.
    """
    for number, (name, mode, flags) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, flags)
            if fd != number:
                os.dup2(fd, number, inheritable=False)
                os.close(fd)
            setattr(sys, name, os.fdopen(number, mode))


def _is_in_foreground() -> bool:
    """Tell whether the terminal may be read, if stdin is one: it would not stop another process."""
    try:
        return not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # of a session that this process is not of
        return False
