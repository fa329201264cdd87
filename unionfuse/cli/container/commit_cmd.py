"""`unionfuse commit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unionfuse.cli.container.common import containers_at, json_option, reports, root_option
from unionfuse.cli.errors import say
from unionfuse.cli.image.common import progress, quiet_option
from unionfuse.cli.image.making import Making, making_options, print_made

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\b
The image has the layers of the container's image and one more, of what the container has written:
it takes as long as there are changes. Of a container that runs, it is what was written until now.

\b
Examples:
  unionfuse commit work localhost/mine:1
  unionfuse commit work mine:2 --cmd 'bash -l' --message 'with tools'
"""


@click.command("commit", epilog=EPILOG)
@click.argument("name", metavar="CONTAINER")
@click.argument("ref", metavar="REF")
@making_options("unionfuse commit")
@quiet_option
@json_option
@root_option
@reports
def command(
    name: str, ref: str, making: Making, quiet: bool, as_json: bool, root: Path | None
) -> None:
    """Make an image of a container."""
    from unionfuse.container import keep, view
    from unionfuse.image.reference import Reference
    from unionfuse.image.store.store import Store

    Reference.parse(ref)  # better told now than when all is packed
    containers = containers_at(root)
    container = containers.find(name)
    with (
        view.settled(containers, container),
        Store.open(containers.path.parent) as store,
        progress(quiet=quiet) as watch,
    ):
        made = keep.commit(store, container, making.recipe(ref, watch))
    for note in made.notes:
        say(note)
    print_made(ref, made.image, as_json=as_json, entries=made.entries, notes=made.notes)
