"""`unionfuse ls`."""

from __future__ import annotations

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.printing import printable

EPILOG = """\b
Examples:
  unionfuse ls
  unionfuse ls --json | jq -r '.[].mountpoint'
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@reports_failures
def ls(as_json: bool) -> None:
    """List the unionfuse mounts of this machine."""
    from unionfuse.fuse import table

    records = table.mounted()
    if as_json:
        import json

        from unionfuse.record import fields_of

        shown = [{name: getattr(one, name) for name in fields_of(one)} for one in records]
        click.echo(json.dumps(shown, indent=2))
        return
    for record in records:
        click.echo(printable(record.mountpoint))
        if not record.pid:
            click.echo("  the daemon is dead, or another user's: nothing more is known")
            continue
        for lower in record.lowers:
            click.echo(f"  lower    {printable(lower)}")
        if record.upper is not None:
            click.echo(f"  upper    {printable(record.upper)}")
            click.echo(f"  workdir  {printable(record.workdir or '')}")
        click.echo(f"  session  {record.session}, pid {record.pid}")
