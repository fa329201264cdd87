"""`unionfuse image rm`."""

from __future__ import annotations

import click

from unionfuse.cli.errors import Failure, reports_failures
from unionfuse.cli.image.common import json_option, opened, print_json, sized
from unionfuse.cli.printing import printable
from unionfuse.image.errors import ImageError

EPILOG = """\b
By a name, that name is taken away; by an id, every name of the image. What no name means any
more is removed, unless a mount or another command uses it: then `unionfuse image gc` does it
later.

\b
Examples:
  unionfuse image rm localhost/old:1
  unionfuse image rm --keep-layers debian:11
"""


@click.command("rm", epilog=EPILOG)
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@click.option("--keep-layers", is_flag=True, help="Leave to gc what is not in use any more.")
@json_option
@reports_failures
def command(refs: tuple[str, ...], keep_layers: bool, as_json: bool) -> None:
    """Remove images."""
    from unionfuse.image.store.collect import Collected, collect

    removed: list[str] = []
    problems: list[str] = []
    collected = Collected([], [], 0)
    with opened(makes_room=True) as store:
        for ref in refs:
            try:
                removed += store.remove(ref)
            except ImageError as err:
                problems.append(str(err))
    if removed and not keep_layers:
        # anew: what was looked at in removing is not in use any more
        with opened(makes_room=True) as store:
            collected = collect(store, partials=False)
    if as_json:
        print_json(
            {"removed": removed, "layers": collected.layers, "freed": collected.size},
        )
    else:
        for name in removed:
            click.echo(f"removed {printable(name)}")
        if collected.blobs or collected.layers:
            click.echo(f"freed {sized(collected.size)}")
    if problems:
        raise Failure("; ".join(problems))
