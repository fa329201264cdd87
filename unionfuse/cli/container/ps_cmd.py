"""`unionfuse ps`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from unionfuse.cli.container.common import (
    containers_at,
    json_option,
    print_json,
    reports,
    root_option,
)

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.container.state import Container, State

_COMMAND_WIDTH = 24

EPILOG = """\b
With -s, SIZE is that of the files which the container has written or copied up, VIRTUAL that and
the files of its image, which it shares.

\b
Examples:
  unionfuse ps
  unionfuse ps -a -s
  unionfuse ps -aq | xargs unionfuse rm -f
"""


@click.command("ps", epilog=EPILOG)
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids alone.")
@click.option("-s", "--size", "sizes", is_flag=True, help="Tell how much room they take.")
@click.option("--no-trunc", is_flag=True, help="Shorten nothing.")
@json_option
@root_option
@reports
def command(
    everything: bool, quiet: bool, sizes: bool, no_trunc: bool, as_json: bool, root: Path | None
) -> None:
    """List containers: those that run, or all."""
    from unionfuse.container.errors import NoSuchContainer
    from unionfuse.container.finish import recover
    from unionfuse.container.names import SHORT
    from unionfuse.container.state import RUNNING

    containers = containers_at(root)
    found: list[tuple[Container, State]] = []
    for container in containers.all():
        try:
            state = recover(containers, container)
        except NoSuchContainer:  # removed meanwhile
            continue
        if everything or state.status == RUNNING:
            found.append((container, state))
    if quiet:
        for container, _ in found:
            click.echo(container.id if no_trunc else container.id[:SHORT])
        return
    rows = _rows(found, containers.path.parent, sizes=sizes)
    if as_json:
        print_json(rows)
    else:
        _print(rows, found, sizes=sizes, whole=no_trunc)


def _rows(found: list[tuple[Container, State]], root: Path, *, sizes: bool) -> list[dict[str, Any]]:
    from unionfuse.container.describe import summary

    rows = [summary(container, state) for container, state in found]
    if sizes and found:
        from unionfuse.container import namespaces
        from unionfuse.container.images import layer_sizes
        from unionfuse.container.view import written_size

        shared = layer_sizes(root)
        namespaces.enter_users()
        for row, (container, _) in zip(rows, found, strict=True):
            row["size"] = written_size(container)
            lowers = [shared.get(lower, 0) for lower in container.record.lowers]
            row["virtual_size"] = row["size"] + sum(lowers)
    return rows


def _print(
    rows: list[dict[str, Any]],
    found: list[tuple[Container, State]],
    *,
    sizes: bool,
    whole: bool,
) -> None:
    from unionfuse.cli.image.common import print_table, sized
    from unionfuse.container.describe import ago, status_of
    from unionfuse.container.names import SHORT

    header = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAME"]
    lines = []
    for row, (container, state) in zip(rows, found, strict=True):
        words = shlex.join(row["command"])
        if not whole and len(words) > _COMMAND_WIDTH:
            words = f"{words[: _COMMAND_WIDTH - 3]}..."
        line = [
            row["id"] if whole else row["id"][:SHORT],
            row["image"],
            words,
            f"{ago(container.record.created)} ago",
            status_of(state),
            row["name"],
        ]
        if sizes:
            line += [sized(row["size"]), sized(row["virtual_size"])]
        lines.append(line)
    print_table([*header, "SIZE", "VIRTUAL"] if sizes else header, lines)
