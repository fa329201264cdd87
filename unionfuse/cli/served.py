"""`unionfuse` in a child of a fork server: what is done to containers."""

from __future__ import annotations

import sys
from importlib import import_module

from unionfuse.cli.group import CONTAINER_COMMANDS, cli


def load() -> None:
    """Import all that starting a container, looking into it and ending it need."""
    for name in CONTAINER_COMMANDS:
        import_module(f"unionfuse.cli.container.{name}_cmd")
    for name in _MODULES:
        import_module(name)
    from unionfuse.fuse import daemon

    daemon.load()


# What commands import when they need it, in the order of a run.
_MODULES = (
    "trio",
    "unionfuse.container.namespaces",
    "unionfuse.container.mounter",
    "unionfuse.container.options",
    "unionfuse.container.images",
    "unionfuse.container.create",
    "unionfuse.container.attach",
    "unionfuse.container.run",
    "unionfuse.container.stop",
    "unionfuse.container.execute",
    "unionfuse.container.view",
    "unionfuse.container.describe",
    "unionfuse.container.logs",
    "unionfuse.image.store.store",
)


def run(argv: list[str]) -> int:
    """Do what the command line says; return the exit code."""
    try:
        cli(argv, prog_name="unionfuse")
    except SystemExit as end:
        if isinstance(end.code, int):
            return end.code
        if end.code is not None:
            sys.stderr.write(f"{end.code}\n")
        return int(end.code is not None)
    return 0
