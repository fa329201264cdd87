"""`unionfuse convert`."""

from __future__ import annotations

import os

import click

from unionfuse.cli.errors import reports_failures
from unionfuse.cli.printing import printable

EPILOG = """\b
Forms:
  overlayfs   char 0:0 and trusted.overlay.*, what overlayfs writes for root
  userxattr   char 0:0 and user.overlay.*, what it reads with -o userxattr
  aufs        .wh.NAME and .wh..wh..opq, what fuse-overlayfs reads too

\b
Examples:
  unionfuse convert --to overlayfs upper
  unionfuse convert --to aufs --workdir work diff
"""


@click.command(epilog=EPILOG)
@click.argument("upper", metavar="UPPER")
@click.option(
    "--to",
    "form",
    required=True,
    type=click.Choice(["overlayfs", "userxattr", "aufs"]),
    help="How UPPER is to be written.",
)
@click.option(
    "--workdir", metavar="DIR", help="The workdir of UPPER.  [default: UPPER.work, if it is there]"
)
@reports_failures
def convert(upper: str, form: str, workdir: str | None) -> None:
    """Write the whiteouts and other markers of UPPER in another form.

    If anything in it can not be said in that form, a line tells each such thing and nothing is
    changed. When it is interrupted UPPER is as good as before; do it again to finish. An UPPER in
    use is left alone.
    """
    from unionfuse.offline.convert import convert as run
    from unionfuse.offline.forms import FORMS

    given = None if workdir is None else os.fsencode(workdir)
    found = run(os.fsencode(upper), FORMS[form], given)
    for line in found:
        click.echo(f"unionfuse: {printable(line)}", err=True)
    if found:
        raise click.exceptions.Exit(1)
