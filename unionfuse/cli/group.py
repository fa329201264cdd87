"""The `unionfuse` command group. A command is loaded when it is used: parsing is to be quick."""

from __future__ import annotations

from importlib import import_module

import click

from unionfuse import __version__

EPILOG = """\b
Exit codes:
  0  done
  1  it could not be done: one line on stderr says why
  2  the command line makes no sense
  130  interrupted

\b
Shell completion, for bash (zsh and fish likewise):
  eval "$(_UNIONFUSE_COMPLETE=bash_source unionfuse)"
"""
COMMANDS = ("mount", "umount", "ls", "check", "convert", "diff", "image", "build", "snapshotter")
CONTAINER_COMMANDS = (
    "commit", "cp", "exec", "export", "inspect", "logs", "prune", "ps", "rm", "run", "start",
    "stop",
)  # fmt: skip


class Commands(click.Group):
    """The commands, `NAME` being that of `unionfuse.cli.NAME_cmd`.

    Those about containers are each `command` of `unionfuse.cli.container.NAME_cmd`.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted((*COMMANDS, *CONTAINER_COMMANDS))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        command: click.Command
        if cmd_name in CONTAINER_COMMANDS:
            command = import_module(f"unionfuse.cli.container.{cmd_name}_cmd").command
            return command
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"unionfuse.cli.{cmd_name}_cmd"), cmd_name)
        return command


@click.group(
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
)
@click.version_option(__version__, "--version", "-V", message="unionfuse %(version)s")
def cli() -> None:
    """Unite read-only directories under a writable one, and show them as one tree.

    \b
    A first mount:
      mkdir lower upper mnt && echo hello > lower/file
      unionfuse mount lower upper mnt
      echo changed > mnt/file        # lower/file stays as it is, upper/file is new
      unionfuse umount mnt
    """
