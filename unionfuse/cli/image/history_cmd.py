"""`unionfuse image history`."""

from __future__ import annotations

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.image.common import json_option, opened, print_json, print_table, short, sized

_CREATED_BY = 60  # columns
EPILOG = """\b
Examples:
  unionfuse image history debian:12
  unionfuse image history --full debian:12
"""


@click.command("history", epilog=EPILOG)
@click.argument("ref", metavar="REF")
@click.option("--full", is_flag=True, help="Do not shorten commands and digests.")
@json_option
@reports_failures
def command(ref: str, full: bool, as_json: bool) -> None:
    """List the steps in which an image was made, the last one first."""
    from unionfuse.image.describe import history

    with opened() as store:
        steps = history(store, store.resolve(ref))[::-1]
    if as_json:
        print_json([step._asdict() for step in steps])
        return
    rows = []
    for step in steps:
        by = " ".join(step.created_by.split())
        layer = step.diff_id or ""
        rows.append(
            (
                layer if full else short(layer),
                (step.created or "")[: None if full else 19],
                by if full or len(by) <= _CREATED_BY else by[: _CREATED_BY - 3] + "...",
                "" if step.size is None else sized(step.size),
                step.comment,
            )
        )
    print_table(("LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"), rows)
