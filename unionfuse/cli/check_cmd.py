"""`unionfuse check`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from unionfuse.cli.errors import reports_failures, say
from unionfuse.cli.printing import printable
from unionfuse.fuse.options import split_layers

if TYPE_CHECKING:
    from unionfuse.offline.check import Outcome

FINDINGS_LEFT = 4  # as fsck(8)

EPILOG = """\b
Examples:
  unionfuse check --lower top:bottom upper
  unionfuse check --lower top:bottom --repair upper
  unionfuse check --workdir work --json diff | jq -r '.[].kind'

\b
Exit codes:
  0  nothing was found, or all of it was mended
  4  something was found and is left
  1, 2, 130  as for every command
"""


@click.command(epilog=EPILOG)
@click.argument("upper", metavar="UPPER")
@click.option(
    "--lower",
    metavar="LOWER[:LOWER...]",
    help="The lower layers, as for mount: without them less can be checked.",
)
@click.option(
    "--workdir", metavar="DIR", help="The workdir of UPPER.  [default: UPPER.work, if it is there]"
)
@click.option("--repair", is_flag=True, help="Mend what can be mended without a guess.")
@click.option("--all", "tells_all", is_flag=True, help="Tell opaque marks too that hide nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@reports_failures
def check(
    upper: str,
    lower: str | None,
    workdir: str | None,
    repair: bool,
    tells_all: bool,
    as_json: bool,
) -> None:
    """Find what is wrong with UPPER, written by unionfuse, overlayfs or fuse-overlayfs.

    One line tells each thing that is found. Nothing is changed unless --repair is given; what is
    mended then looks the same when it is mounted. An UPPER in use is not repaired.
    """
    from unionfuse.offline.check import Check, Request

    run = Check(
        Request(
            os.fsencode(upper),
            [] if lower is None else split_layers(os.fsencode(lower)),
            None if workdir is None else os.fsencode(workdir),
            tells_superfluous=tells_all,
            repairs=repair,
        )
    )
    objects = []
    is_clean = True
    for outcome in run.outcomes():
        is_clean = is_clean and outcome.is_mended
        if as_json:
            objects.append(_as_object(outcome))
        else:
            click.echo(printable(_line(outcome)))
    if as_json:
        import json

        click.echo(json.dumps(objects, indent=2))
    for note in run.notes:
        say(note)
    if not is_clean:
        raise click.exceptions.Exit(FINDINGS_LEFT)


def _line(outcome: Outcome) -> str:
    finding = outcome.finding
    where = "" if finding.place == "upper" else "workdir "
    line = f"{finding.kind}: {where}/{os.fsdecode(finding.path)}: {finding.detail}"
    if outcome.failure is not None:
        return f"{line} [not mended: {outcome.failure}]"
    if outcome.is_mended:
        return f"{line} [mended]"
    if finding.mend is not None:
        return f"{line} [--repair: {finding.mend.text}]"
    return line


def _as_object(outcome: Outcome) -> dict[str, str | bool | None]:
    finding = outcome.finding
    return {
        "kind": finding.kind.value,
        "place": finding.place,
        "path": "/" + os.fsdecode(finding.path),
        "detail": finding.detail,
        "repair": None if finding.mend is None else finding.mend.text,
        "repaired": outcome.is_mended,
    }
