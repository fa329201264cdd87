"""`unionfuse image squash`."""

from __future__ import annotations

import click

from unionfuse.cli.errors import reports_failures, say
from unionfuse.cli.image.common import (
    json_option,
    opened,
    progress,
    quiet_option,
    tidy,
)
from unionfuse.cli.image.making import Making, making_options, print_made

EPILOG = """\b
What layers below hide is not in the new image, and its history is one step.

\b
Examples:
  unionfuse image squash localhost/mine:1 localhost/mine:1-flat
"""


@click.command("squash", epilog=EPILOG)
@click.argument("ref", metavar="REF")
@click.argument("new_ref", metavar="NEWREF")
@making_options("unionfuse image squash")
@quiet_option
@json_option
@reports_failures
def command(
    ref: str,
    new_ref: str,
    making: Making,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make an image of one layer that shows what REF does."""
    from unionfuse.image.making.image import squash

    with opened() as store, progress(quiet=quiet) as watch:
        recipe = making.recipe(new_ref, watch)
        try:
            made = squash(store, store.resolve(ref), recipe)
        finally:
            tidy(store)
    for note in made.notes:
        say(note)
    print_made(new_ref, made.image, as_json=as_json, notes=made.notes)
