"""`unionfuse image tag`."""

from __future__ import annotations

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.image.common import json_option, opened, print_json

EPILOG = """\b
Examples:
  unionfuse image tag debian:12 registry.example:5000/base/debian:12
"""


@click.command("tag", epilog=EPILOG)
@click.argument("ref", metavar="REF")
@click.argument("new_refs", metavar="NEWREF...", nargs=-1, required=True)
@json_option
@reports_failures
def command(ref: str, new_refs: tuple[str, ...], as_json: bool) -> None:
    """Give an image one more name; one that another image has passes over to it."""
    from unionfuse.image.reference import Reference

    references = [Reference.parse(text) for text in new_refs]
    with opened() as store:
        for reference in references:
            image = store.tag(ref, reference)
    if as_json:
        print_json({"id": image.id, "refs": [str(reference) for reference in references]})
