"""The command line: parsing, printing and exit codes; one file a command."""

from __future__ import annotations

import gc
import os
import sys

# What is done to containers one after the other, and waited for.
_SERVED = frozenset({"exec", "inspect", "logs", "ps", "rm", "run", "start", "stop"})


def main() -> None:
    """Run the command line and exit."""
    gc.disable()  # what imports make is no garbage; the daemon enables it again
    if sys.argv[1:2] and sys.argv[1] in _SERVED and _is_in_foreground():
        from unionfuse.cli.forkserver import client

        status = client.run("unionfuse", sys.argv[1:])
        if status is not None:
            os._exit(status)
    from unionfuse.cli.group import cli

    try:
        cli(prog_name="unionfuse")
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        # Whoever called waits for the end: to take the modules down first takes 10 ms.
        os._exit(end.code)


def _is_in_foreground() -> bool:
    """Tell whether the terminal may be read, if stdin is one: it would not stop another process."""
    try:
        return not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # of a session that this process is not of
        return False
