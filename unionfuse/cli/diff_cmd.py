"""`unionfuse diff`."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import click

from unionfuse.cli.container.common import reports, root_option
from unionfuse.cli.errors import say
from unionfuse.cli.printing import printable
from unionfuse.fuse.options import split_layers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unionfuse.layer.stack import LayerStack
    from unionfuse.offline.diff import Change

EPILOG = """\b
Each line is a letter and a path; parents come first:
  A  added
  C  changed, or a directory in which something changed
  D  deleted

\b
Examples:
  unionfuse diff upper
  unionfuse diff --lower top:bottom upper
  unionfuse diff --json upper | jq -r '.[] | select(.kind == "D") | .path'
  unionfuse diff web
  unionfuse diff -0 upper | xargs -0 -n 1 echo
"""


@click.command(epilog=EPILOG)
@click.argument("upper", metavar="UPPER|CONTAINER")
@click.option(
    "--lower",
    metavar="LOWER[:LOWER...]",
    help="The lower layers, as for mount: makes it exact what is A and what is C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.option("-0", "--null", is_flag=True, help="End each line with a NUL, and quote nothing.")
@root_option
@reports
def diff(upper: str, lower: str | None, as_json: bool, null: bool, root: Path | None) -> None:
    """List what UPPER adds, changes and deletes, reading nothing but UPPER.

    A mount of UPPER may be in use meanwhile. What is no directory is taken for the name or the id
    of a container: then it is what that has changed of its image.
    """
    if as_json and null:
        raise click.UsageError("--json and --null exclude each other")
    from unionfuse.offline.diff import UpperDiff

    with _opened(upper, lower, root) as (stack, has_lowers, left_out):
        reading = UpperDiff(stack)
        changes = (change for change in reading.changes() if change.path not in left_out)
        if as_json:
            import json

            click.echo(json.dumps([_as_object(change) for change in changes], indent=2))
        else:
            for change in changes:
                line = f"{change.kind} /{os.fsdecode(change.path)}"
                click.echo(os.fsencode(line) + b"\0" if null else printable(line), nl=not null)
        if not has_lowers and not reading.has_origins:
            say("no origins in this upper: what is A may be C; give --lower to know")


@contextlib.contextmanager
def _opened(
    upper: str, lower: str | None, root: Path | None
) -> Iterator[tuple[LayerStack, bool, frozenset[bytes]]]:
    """Yield the layers to compare, whether the lowers are among them, and paths to leave out."""
    from unionfuse.offline.layers import opened

    if lower is None and "/" not in upper and not os.path.isdir(upper):
        from unionfuse.cli.container.common import containers_at
        from unionfuse.container import init_layer, view

        containers = containers_at(root)
        container = containers.find(upper)
        with view.settled(containers, container), view.layers(container) as stack:
            yield stack, True, init_layer.FILES
        return
    lowers = [] if lower is None else split_layers(os.fsencode(lower))
    with opened(os.fsencode(upper), lowers) as stack:
        yield stack, lower is not None, frozenset()


def _as_object(change: Change) -> dict[str, str | None]:
    redirect = change.redirect
    return {
        "kind": change.kind,
        "path": "/" + os.fsdecode(change.path),
        "redirect": None if redirect is None else os.fsdecode(redirect),
    }
