"""The command line: parsing, printing and exit codes; one file a command."""

from unionfuse.cli.main import main

__all__ = ["main"]
