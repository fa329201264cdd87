"""The commands that read what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bench import terminal
from bench.baseline import count_all, differences, keep, kept
from bench.cli.options import alone, directory_option, obtain_tree
from bench.compare import MARGIN, compare
from bench.errors import BenchError
from bench.record import load
from bench.report import write_report
from bench.requests import why_not

record_argument = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("record", type=record_argument)
@click.option(
    "--docs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("docs/benchmarks"),
    show_default=True,
    help="The directory that the report with its plots is written into.",
)
def report(record: Path, docs: Path) -> None:
    """Make the report, in Markdown with plots, from a RECORD that `run` or `all` wrote."""
    try:
        write_report(load(record), docs)
    except BenchError as error:
        raise click.ClickException(str(error)) from error


@click.command("compare")
@click.argument("old", type=record_argument)
@click.argument("new", type=record_argument)
@click.option(
    "--margin",
    type=click.FloatRange(0),
    default=MARGIN,
    show_default=True,
    help="By how much of it a ratio of times may rise.",
)
def compare_(old: Path, new: Path, margin: float) -> None:
    """Tell what of unionfuse is worse in NEW than in OLD; exit with 1 if something is."""
    try:
        changes = compare(load(old), load(new), margin)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    terminal.show_changes(changes)
    sys.exit(1 if any(change.worse for change in changes) else 0)


@click.command()
@directory_option
@click.option("--write", is_flag=True, help="Keep the counts of now as those to compare with.")
def baseline(directory: Path, write: bool) -> None:
    """Count the requests of some workloads; exit with 1 if there are more than in the baseline."""
    if reason := why_not():
        raise click.ClickException(reason)
    tree = obtain_tree(directory, made=True)
    try:
        before = None if write else kept()
        with alone(directory):
            counts = count_all(tree, directory, before)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    if before is None:
        keep(counts)
        return
    found = differences(before, counts)
    for line in found.fewer:
        click.echo(f"fewer: {line}; `--write` keeps that")
    for line in found.more:
        click.echo(f"more: {line}", err=True)
    sys.exit(1 if found.more else 0)


COMMANDS = (report, compare_, baseline)
