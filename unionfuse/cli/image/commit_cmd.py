"""`unionfuse image commit`."""

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
Nothing but UPPER is read, so it takes as long as there are changes. It may be mounted: what was
written is brought into it first, and nobody should write meanwhile. The same upper gives the same
layer; with $SOURCE_DATE_EPOCH the same image.

\b
Examples:
  unionfuse image commit upper localhost/mine:1
  unionfuse image commit upper mine:2 --base debian:12 --cmd 'bash -l' --env LANG=C.UTF-8
  unionfuse image commit rootfs mine:3 --base scratch
"""


@click.command("commit", epilog=EPILOG)
@click.argument("upper", metavar="UPPER")
@click.argument("ref", metavar="REF")
@click.option(
    "--base",
    metavar="REF|scratch",
    help="The image that UPPER is on.  [default: that which it was mounted on]",
)
@making_options("unionfuse image commit")
@quiet_option
@json_option
@reports_failures
def command(
    upper: str,
    ref: str,
    base: str | None,
    making: Making,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a new image of what UPPER changes."""
    from unionfuse.cli.image.upper import base_of, settled
    from unionfuse.image.making.image import commit

    path, lowers = settled(upper)
    with opened() as store, progress(quiet=quiet) as watch:
        recipe = making.recipe(ref, watch)
        try:
            made = commit(store, path, base_of(store, path, base, lowers), recipe)
        finally:
            tidy(store)
    for note in made.notes:
        say(note)
    print_made(ref, made.image, as_json=as_json, entries=made.entries, notes=made.notes)
