"""`unionfuse image gc`."""

from __future__ import annotations

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.image.common import json_option, opened, print_json, sized

EPILOG = """\b
What is kept: all that a name leads to, what mounts and running commands use, and the layers of
builds, for the next ones. Other commands may run meanwhile, in any number.

\b
Examples:
  unionfuse image gc --dry-run
  unionfuse image gc --build-cache
"""


@click.command("gc", epilog=EPILOG)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option(
    "--build-cache", is_flag=True, help="Also what `unionfuse build` keeps for next time."
)
@json_option
@reports_failures
def command(dry_run: bool, build_cache: bool, as_json: bool) -> None:
    """Remove the blobs and layers that no image has, and what was left by cut transfers."""
    from unionfuse.image.store.collect import collect

    with opened(makes_room=not dry_run) as store:
        collected = collect(store, build_cache=build_cache, dry_run=dry_run)
    if as_json:
        print_json(collected._asdict())
        return
    for what in (*collected.blobs, *(f"layer {name}" for name in collected.layers)):
        click.echo(f"{'would remove' if dry_run else 'removed'} {what}")
    click.echo(f"{'would free' if dry_run else 'freed'} {sized(collected.size)}")
