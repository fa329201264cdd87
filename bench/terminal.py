"""Show figures on the terminal."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.requests import NOT_WAITED_FOR, Counts
from bench.rounds import Failure
from bench.systems import PEER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from bench.compare import Change
    from bench.record import Record
    from bench.rounds import Results
    from bench.tree import Tree
    from bench.workloads import Workload

# In a pipe or a file there is no width to keep to.
out = Console(width=None if sys.stdout.isatty() else 150)
err = Console(stderr=True)


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show how far it is; call what is yielded when the next step begins."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=total)
        begun = False

        def begin(what: str) -> None:
            nonlocal begun
            bar.update(task, description=what, advance=1 if begun else 0)
            begun = True

        yield begin


def show_requests(
    workloads: Sequence[Workload],
    systems: Sequence[str],
    counts: Mapping[tuple[str, str], Counts | Failure],
    tree: Tree,
) -> int:
    """Print the number of requests waited for; return how many are over their limit or failed."""
    table = Table(
        title="requests that somebody waits for / how many are allowed",
        caption="[dim](n)[/]: wanted, but the kernel asks more whatever the daemon does",
    )
    table.add_column("workload")
    for system in systems:
        table.add_column(system, justify="right")
    bad = 0
    failures = []
    for workload in workloads:
        row = []
        for system in systems:
            got = counts.get((workload.name, system))
            if got is None:
                row.append("")
                continue
            if isinstance(got, Failure):
                failures.append(got)
                row.append("[red]failed")
                bad += 1
                continue
            allowed = workload.allowed(system, tree)
            over = allowed is not None and got.waited_for > allowed
            bad += over
            shown = f"{got.waited_for:,}"
            if allowed is not None:
                limit = workload.limits[system]
                shown += f" [dim]/ {allowed:,}{'' if limit == allowed else f' ({limit:,})'}[/]"
            row.append(f"[red]{shown} OVER[/]" if over else shown)
        table.add_row(workload.name, *row)
    out.print(table)
    show_failures(failures)
    return bad


def show_opcodes(counts: Mapping[tuple[str, str], Counts | Failure]) -> None:
    """Print every count by opcode, those that nobody waits for in brackets."""
    for (workload, system), got in counts.items():
        if isinstance(got, Counts):
            shown = ", ".join(
                f"({opcode} {n:,})" if opcode in NOT_WAITED_FOR else f"{opcode} {n:,}"
                for opcode, n in got.most_common()
            )
            out.print(f"[bold]{workload}[/] on [bold]{system}[/]: {shown or 'none'}")


def show_times(record: Record) -> None:
    """Print the time of each workload in relation to overlayfs, and the geometric means."""
    results, workloads, systems = record.results, list(record.workloads), list(record.systems)
    out.print(_ratios(results, workloads, systems, record.reference))
    out.print(_daemons(results, workloads, systems))


def _ratios(
    results: Results, workloads: Sequence[str], systems: Sequence[str], reference: str
) -> Table:
    table = Table(title=f"time / time of {reference} in the same round: median (least-most)")
    table.add_column("workload")
    for system in systems:
        table.add_column(system, justify="right")
    for workload in workloads:
        row = []
        for system in systems:
            seconds = results.seconds(workload, system)
            ratio = results.ratio(workload, system, reference)
            if (workload, system) not in results.samples:
                row.append("")
            elif seconds is None:
                row.append("[red]failed")
            elif ratio is None or system == reference:
                row.append(f"{seconds * 1000:,.1f} ms")
            else:
                spread = f"({ratio.least:.2f}-{ratio.most:.2f})"
                row.append(f"{ratio.median:.2f} [dim]{spread}[/]")
        table.add_row(workload, *row)
    table.add_section()
    for against in dict.fromkeys((reference, PEER.name)):
        if against in systems:
            means = [results.mean_ratio(workloads, system, against) for system in systems]
            shown = [
                "" if mean is None else f"{mean[0]:.2f} [dim]of {mean[1]}[/]" for mean in means
            ]
            table.add_row(f"mean / {against}", *shown)
    return table


def _daemons(results: Results, workloads: Sequence[str], systems: Sequence[str]) -> Table:
    served = [
        system
        for system in systems
        if any(results.pss_kib(workload, system) for workload in workloads)
    ]
    table = Table(title="daemon: CPU ms (median), PSS MiB afterwards (most)")
    table.add_column("workload")
    for system in served:
        table.add_column(system, justify="right")
    for workload in workloads:
        row = []
        for system in served:
            cpu = results.cpu_seconds(workload, system)
            pss = results.pss_kib(workload, system)
            row.append("" if cpu is None or not pss else f"{cpu * 1000:,.0f}, {pss / 1024:.0f}")
        table.add_row(workload, *row)
    return table


def show_points(record: Record) -> None:
    """Print what was measured with few and many of something, one row a number."""
    for scale, facts in record.scales.items():
        table = Table(title=f"{scale}: {' | '.join(facts.figures.values())}")
        table.add_column(scale, justify="right")
        for system in record.systems:
            table.add_column(system, justify="right")
        for at in record.at(scale):
            points = [record.point(scale, system, at) for system in record.systems]
            shown = [
                " | ".join(f"{point.figures[name]:,.3g}" for name in facts.figures) if point else ""
                for point in points
            ]
            table.add_row(f"{at:,}", *shown)
        out.print(table)
    show_failures(record.results.failures)


def show_changes(changes: Sequence[Change]) -> None:
    """Print what differs between two records, what is worse in red."""
    table = Table(title="what has changed")
    for column in ("workload", "system", "what", "old", "new"):
        table.add_column(column, justify="right" if column in {"old", "new"} else "left")
    for change in changes:
        colour = "red" if change.worse else "green"
        row = (change.workload, change.system, change.what, change.old, change.new)
        table.add_row(*(f"[{colour}]{cell}[/]" for cell in row))
    out.print(table if changes else "nothing has changed")


def show_failures(failures: Iterable[Failure]) -> None:
    """Print what could not be measured."""
    for failure in failures:
        out.print(f"[red]{escape(failure.system)}: {escape(failure.what)}[/]", highlight=False)
