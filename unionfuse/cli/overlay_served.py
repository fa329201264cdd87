"""`unionfuse-overlay` in a child of a fork server."""

from __future__ import annotations

from unionfuse.cli import overlay_cmd


def load() -> None:
    """Import all that a mount needs."""
    import trio  # noqa: F401 - to have it

    import unionfuse.fuse.overlay_words  # noqa: F401 - to have it
    from unionfuse.fuse import daemon

    daemon.load()


def run(argv: list[str]) -> int:
    """Do what the command line says; return the exit code. Engines alone ask for it."""
    return overlay_cmd.run(argv, by_engine=True)
