"""Write a record as a page of Markdown with its plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bench.record import Record

GROUPS = {
    "reading": "Reading",
    "writing": "Making and removing files",
    "changing": "Changing what is there",
    "programs": "Programs",
    "data": "Much data in one file",
}
HEADINGS = {
    "start": "To the first output of a container",
    "layers": "Many layers",
    "files": "Many files",
    "mounts": "Many mounts",
}


def write_report(record: Record, directory: Path) -> None:
    """Write README.md and the plots into `directory`.

    Raises:
        BenchError: matplotlib is not there.
    """
    try:
        from bench.plots import draw_all
    except ImportError as error:
        raise BenchError("plots need matplotlib: pip install 'unionfuse[bench]'") from error
    directory.mkdir(parents=True, exist_ok=True)
    plots = draw_all(record, directory)
    (directory / "README.md").write_text(page(record, plots))


def page(record: Record, plots: Sequence[str]) -> str:
    """Return the page; `plots` are the names of the files beside it."""
    parts = [_head(record)]
    if record.results.samples:
        parts += [
            _means(record, plots),
            *_groups(record, plots),
            _requests(record),
            _daemons(record),
        ]
    parts += [_scale(record, scale, plots) for scale in record.scales if record.at(scale)]
    parts += [_failures(record)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, all columns but the first to the right."""
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Return a figure in three digits, without an exponent."""
    hundred = 100
    return f"{value:,.0f}" if abs(value) >= hundred else f"{value:.3g}"


def _plot(name: str, plots: Sequence[str], says: str) -> str:
    return f"![{says}]({name})" if name in plots else ""


def _head(record: Record) -> str:
    facts = record.machine
    processors = f"{facts['processors']} x {facts['processor']}"
    memory = f"{int(facts['memory_mib']) / 1024:.0f} GiB of memory"
    load = facts.get("load", "not noted")
    cold = (
        "a fresh mount with a cold page cache"
        if record.drop_caches
        else "a fresh mount; the page cache of the layers is warm"
    )
    systems = table(
        ["system", "version", "what it is", "rounds"],
        [
            [name, facts.version, facts.summary, str(facts.rounds or "")]
            for name, facts in record.systems.items()
        ],
    )
    # all but the last column are text, not figures
    systems = systems.replace("---:", "---", 2)
    return f"""# Benchmarks

Made by `python -m bench report`; do not edit. What is measured and how:
[bench](../../bench/README.md); why the figures are what they are:
[what it costs](../explanation/performance.md).

Measured {record.time[:10]}: {processors}, {memory}, Linux {facts["kernel"]},
{facts["filesystem"]}, Python {facts["python"]}. Times are medians of interleaved rounds.
The load average was {load}: before, and after each part; 1 to 2 of it is the benchmark's own.
The result of each run was checked. "Cold" is {cold}.

{systems}"""


def _means(record: Record, plots: Sequence[str]) -> str:
    others = [system for system in record.systems if system != record.reference]
    rows = []
    for group, workloads in {**record.groups(), "all": list(record.workloads)}.items():
        row = [GROUPS.get(group, group)]
        for system in others:
            mean = record.results.mean_ratio(workloads, system, record.reference)
            row.append(f"{mean[0]:.2f} of {mean[1]}" if mean else "")
        rows.append(row)
    return f"""## In short

Time / time of {record.reference} in the same round: the geometric mean, and of how many workloads.

{_plot("means.svg", plots, "geometric means by kind of work")}

{table(["workloads", *others], rows)}"""


def _groups(record: Record, plots: Sequence[str]) -> list[str]:
    return [
        f"""## {GROUPS.get(group, group)}

{_plot(f"ratios-{group}.svg", plots, f"ratios, {group}")}

{_times(record, workloads)}

{chr(10).join(f"- `{name}`: {record.workloads[name].does}." for name in workloads)}"""
        for group, workloads in record.groups().items()
    ]


def _times(record: Record, workloads: Sequence[str]) -> str:
    results, reference = record.results, record.reference
    others = [system for system in record.systems if system != reference]
    rows = []
    for workload in workloads:
        seconds = results.seconds(workload, reference)
        row = [workload, number(seconds * 1e3) if seconds is not None else ""]
        for system in others:
            ratio = results.ratio(workload, system, reference)
            if ratio:
                row.append(f"{ratio.median:.2f} ({ratio.least:.2f}-{ratio.most:.2f})")
            else:
                row.append("failed" if (workload, system) in results.samples else "")
        rows.append(row)
    return table(["workload", f"{reference}, ms", *others], rows)


def _requests(record: Record) -> str:
    counts = record.results.counts
    systems = [name for name in record.systems if any(name == system for _, system in counts)]
    if not systems:
        return ""
    rows = []
    for workload in record.workloads:
        row = [workload]
        for system in systems:
            found = counts.get((workload, system))
            row.append("" if found is None else f"{found.waited_for:,}")
        rows.append(row)
    return f"""## Requests

That a program waits for, the least of the rounds. They do not depend on how busy the machine is.

{table(["workload", *systems], rows)}"""


def _daemons(record: Record) -> str:
    results = record.results
    systems = [
        system
        for system in record.systems
        if any(results.pss_kib(workload, system) for workload in record.workloads)
    ]
    if not systems:
        return ""
    rows = []
    for workload in record.workloads:
        row = [workload]
        for system in systems:
            cpu, pss = results.cpu_seconds(workload, system), results.pss_kib(workload, system)
            row.append("" if cpu is None or pss is None else f"{cpu * 1e3:,.0f}, {pss / 1024:.0f}")
        rows.append(row)
    return f"""## The daemons

CPU in ms, median, and memory afterwards (PSS) in MiB, most.

{table(["workload", *systems], rows)}"""


def _scale(record: Record, scale: str, plots: Sequence[str]) -> str:
    facts = record.scales[scale]
    systems = [
        system
        for system in record.systems
        if any((point.scale, point.system) == (scale, system) for point in record.points)
    ]
    parts = [
        f"## {HEADINGS.get(scale, scale)}",
        f"What a user does who does that: {facts.does}.",
        _plot(f"{scale}.svg", plots, f"figures by the number of {scale}"),
    ]
    for name, says in facts.figures.items():
        rows = []
        for at in record.at(scale):
            points = [record.point(scale, system, at) for system in systems]
            rows.append(
                [f"{at:,}", *(number(point.figures[name]) if point else "" for point in points)]
            )
        parts.append(f"{says}:\n\n{table([scale, *systems], rows)}")
    return "\n\n".join(part for part in parts if part)


def _failures(record: Record) -> str:
    if not record.results.failures:
        return ""
    lines = "\n".join(f"- {one.system}: `{one.what}`" for one in record.results.failures)
    return f"## What could not be measured\n\n{lines}"
