"""`unionfuse cp`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from unionfuse.cli.container.common import containers_at, reports, root_option

if TYPE_CHECKING:
    from pathlib import Path

_STREAM = "-"  # stdin or stdout
EPILOG = """\b
One of SRC and DST is CONTAINER:PATH. The other may be -: a tar on stdin, which is unpacked into the
directory PATH, or on stdout. Else the rules for names are docker's: into a directory that is
there, else to that name; SRC/. is what is in a directory, without itself. A file takes the place
of one that is there. Volumes of the container are seen, a tmpfs of it is not.

\b
Examples:
  unionfuse cp page.html web:/srv/
  unionfuse cp web:/var/log/. logs
  tar -c site | unionfuse cp - web:/srv
"""


@click.command("cp", epilog=EPILOG)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("-a", "--archive", is_flag=True, help="Keep owners.")
@click.option("-L", "--follow-link", is_flag=True, help="Copy what a symlink SRC leads to.")
@root_option
@reports
def command(source: str, target: str, archive: bool, follow_link: bool, root: Path | None) -> None:
    """Copy a file or a directory into a container, or out of one; it may run or not."""
    from unionfuse.container import copy, view

    source_name, source_path = _split(source)
    target_name, target_path = _split(target)
    if (source_name is None) == (target_name is None):
        raise click.UsageError("expected CONTAINER:PATH as one of SRC and DST")
    containers = containers_at(root)
    container = containers.find(source_name or target_name or "")
    if target_path == _STREAM and target_name is None and os.isatty(1):
        raise click.UsageError("a tar is not for a terminal: redirect stdout")
    copying = copy.Copying(source_path, target_path, owners=archive, follow=follow_link)
    with view.tree(containers, container) as tree:
        if source_name is not None and target_path == _STREAM:
            copy.to_tar(tree, source_path, 1, follow=follow_link)
        elif target_name is not None and source_path == _STREAM:
            copy.from_tar(tree, 0, target_path, owners=archive)
        elif source_name is not None:
            copy.out_of(tree, copying)
        else:
            copy.into(tree, copying)


def _split(text: str) -> tuple[str | None, str]:
    name, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")):
        return None, text
    if not path:
        raise click.UsageError(f"{text}: expected CONTAINER:PATH")
    return name, path
