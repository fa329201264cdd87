"""`unionfuse image ls`."""

from __future__ import annotations

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.image.common import json_option, opened, print_json, print_table, short, sized

EPILOG = """\b
SIZE is that of the files in the layers; SHARED, how much of it other images have too.

\b
Examples:
  unionfuse image ls
  unionfuse image ls --json | jq -r '.[] | select(.size > 1e8) | .ref'
"""


@click.command("ls", epilog=EPILOG)
@json_option
@reports_failures
def command(as_json: bool) -> None:
    """List the images."""
    from unionfuse.image.describe import rows
    from unionfuse.image.reference import Reference

    with opened() as store:
        found = rows(store)
    if as_json:
        print_json([row._asdict() for row in found])
        return
    print_table(
        ("REFERENCE", "ID", "PLATFORM", "CREATED", "SIZE", "SHARED", "LAYERS"),
        [
            (
                Reference.parse(row.ref).familiar(),
                short(row.id),
                row.platform,
                (row.created or "")[:10],
                "not unpacked" if row.size is None else sized(row.size),
                sized(row.shared),
                str(len(row.layers)),
            )
            for row in found
        ],
    )
