"""The command line: parsing, printing and exit codes; one file a command."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line and exit."""
    gc.disable()  # what imports make is no garbage; the daemon enables it again
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
