"""The `unionfuse` command group."""

from __future__ import annotations

import sys

import click

from unionfuse import __version__
from unionfuse.cli.ls_cmd import ls
from unionfuse.cli.mount_cmd import mount
from unionfuse.cli.umount_cmd import umount

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


@click.group(
    epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96}
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


cli.add_command(mount)
cli.add_command(umount)
cli.add_command(ls)


def main() -> None:
    """Run the command line and exit."""
    try:
        cli(prog_name="unionfuse")
    except KeyboardInterrupt:
        sys.exit(130)
