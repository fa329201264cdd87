"""`unionfuse image tree`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.image.common import json_option, opened, print_json, short, sized
from unionfuse.cli.printing import printable

if TYPE_CHECKING:
    from unionfuse.image.describe import Branch

EPILOG = """\b
Layers that several images begin with are shown once, with all that is built on them.

\b
Examples:
  unionfuse image tree
"""


@click.command("tree", epilog=EPILOG)
@json_option
@reports_failures
def command(as_json: bool) -> None:
    """Show the layers of all images as a tree: what is built on what."""
    from unionfuse.image.describe import tree

    with opened() as store:
        branches = tree(store)
    if as_json:
        print_json([_as_object(branch) for branch in branches])
        return
    for branch in branches:
        _show(branch, "", "")


def _show(branch: Branch, first: str, rest: str) -> None:
    size = "not unpacked" if branch.size is None else sized(branch.size)
    names = "".join(f"  {printable(name)}" for name in branch.names)
    click.echo(f"{first}{short(branch.diff_id)} {size}{names}")
    for number, above in enumerate(branch.above, 1):
        is_last = number == len(branch.above)
        _show(above, rest + ("└─ " if is_last else "├─ "), rest + ("   " if is_last else "│  "))


def _as_object(branch: Branch) -> dict[str, object]:
    return {
        "diff_id": branch.diff_id,
        "chain_id": branch.chain_id,
        "size": branch.size,
        "names": branch.names,
        "above": [_as_object(above) for above in branch.above],
    }
