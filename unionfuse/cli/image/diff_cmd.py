"""`unionfuse image diff`."""

from __future__ import annotations

import os

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.image.common import json_option, opened, print_json
from unionfuse.cli.printing import printable

EPILOG = """\b
Each line is a letter and a path; parents come first:
  A  added
  C  changed: content, owner, mode, times, attributes
  D  deleted, with all that was in it

\b
Examples:
  unionfuse image diff localhost/mine:1              what its topmost layer changes
  unionfuse image diff debian:12 localhost/mine:1
"""


@click.command("diff", epilog=EPILOG)
@click.argument("refs", metavar="[REF] REF", nargs=-1, required=True)
@json_option
@reports_failures
def command(refs: tuple[str, ...], as_json: bool) -> None:
    """List what is different in an image: from another one, or from what is below its top layer.

    What an upper changes, `unionfuse diff` tells.
    """
    if len(refs) > 2:
        raise click.UsageError("expected one or two images")
    from unionfuse.image.compare import differences

    with opened() as store:
        new = store.resolve(refs[-1])
        store.unpack(new)
        layers = new.layer_directories()
        below = layers[:-1]
        if len(refs) == 2:
            old = store.resolve(refs[0])
            store.unpack(old)
            below = old.layer_directories()
        found = list(differences(below, layers))
    if as_json:
        print_json([{"kind": kind, "path": "/" + os.fsdecode(path)} for kind, path in found])
        return
    for kind, path in found:
        click.echo(f"{kind} /{printable(os.fsdecode(path))}")
