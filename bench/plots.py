"""Draw a record: bars of ratios by workload, lines over the number of layers, files and mounts.

The only module that imports matplotlib. The same record gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from bench.record import Record

# Okabe and Ito's colours, which people who see few of them can tell apart, and one of Tol's.
COLOURS = {
    "bare": "#999999",
    "overlayfs": "#000000",
    "fuse-overlayfs": "#D55E00",
    "unionfs-fuse": "#CC79A7",
    "mergerfs": "#E69F00",
    "auto": "#0072B2",
    "pyfuse3": "#56B4E9",
    "cached": "#009E73",
    "passthrough": "#332288",
}
OTHERS = ("#F0E442", "#882255", "#117733")
MARKERS = "osD^vP*X<>"
STYLE: dict[str, object] = {
    "svg.hashsalt": "unionfuse",  # the ids of its elements, which are random otherwise
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "path.simplify": True,
}
TICKS = [2.0**power for power in range(-9, 10)]
WIDTH = 8.0  # inches
BAR = 0.11  # inch that a bar is high
DECADE = 10  # an axis that spans less is linear
DEFAULT = "auto"


def label(record: Record, system: str) -> str:
    """Return what a system is called in a plot or a table."""
    return f"unionfuse ({system})" if record.systems[system].ours else system


def draw_all(record: Record, directory: Path) -> list[str]:
    """Write every plot that the record has figures for; return the names of the files."""
    written = []
    with style.context(STYLE):
        if record.results.samples:
            written.append(_save(_means(record), directory / "means.svg"))
        for group, workloads in record.groups().items():
            figure = _ratios(record, workloads)
            if figure:
                written.append(_save(figure, directory / f"ratios-{group}.svg"))
        written += [
            _save(_scale(record, scale), directory / f"{scale}.svg")
            for scale in record.scales
            if record.at(scale)
        ]
    return written


def _save(figure: Figure, path: Path) -> str:
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    return path.name


def _colours(record: Record) -> dict[str, str]:
    others = iter(OTHERS * len(record.systems))
    return {system: COLOURS.get(system) or next(others) for system in record.systems}


def _means(record: Record) -> Figure:
    """Draw the geometric mean of each group, and of all, for every system."""
    rows = {**record.groups(), "all": list(record.workloads)}
    values: dict[str, dict[str, tuple[float, float, float]]] = {}
    for row, workloads in rows.items():
        for system in record.systems:
            mean = record.results.mean_ratio(workloads, system, record.reference)
            if mean and system != record.reference:
                values.setdefault(row, {})[system] = (mean[0], mean[0], mean[0])
    title = f"time / time of {record.reference}: geometric means of the workloads"
    return _bars(record, values, title)


def _ratios(record: Record, workloads: Sequence[str]) -> Figure | None:
    """Draw the ratio of each workload; of our ways, that which is the default."""
    ours = [system for system, facts in record.systems.items() if facts.ours]
    left_out = set(ours) - {DEFAULT} if DEFAULT in ours else set()
    values: dict[str, dict[str, tuple[float, float, float]]] = {}
    for workload in workloads:
        for system in record.systems:
            ratio = record.results.ratio(workload, system, record.reference)
            if ratio and system not in left_out and system != record.reference:
                figures = (ratio.median, ratio.least, ratio.most)
                values.setdefault(workload, {})[system] = figures
    title = f"time / time of {record.reference} in the same round: median, least to most"
    return _bars(record, values, title) if values else None


def _bars(
    record: Record, values: Mapping[str, Mapping[str, tuple[float, float, float]]], title: str
) -> Figure:
    """Draw bars that begin at 1: what is faster goes to the left of it, what is slower right."""
    shown = [system for system in record.systems if any(system in row for row in values.values())]
    colours = _colours(record)
    height = len(values) * (len(shown) + 1.5) * BAR
    figure = Figure(figsize=(WIDTH, height + 1.2), layout="constrained")
    axes = figure.add_subplot()
    step = 1 / (len(shown) + 1.5)
    for place, system in enumerate(shown):
        rows = [
            (row, found[system]) for row, found in enumerate(values.values()) if system in found
        ]
        heights = [row + (place - (len(shown) - 1) / 2) * step for row, _ in rows]
        axes.barh(
            heights,
            [median - 1 for _, (median, _, _) in rows],
            height=step * 0.9,
            left=1,
            color=colours[system],
            label=label(record, system),
        )
        for at, (_, (_, least, most)) in zip(heights, rows, strict=True):
            if most > least:
                _span(axes, least, most, at)
    every = [figure for row in values.values() for found in row.values() for figure in found]
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(0.8, *every) / 1.1, max(1.25, *every) * 1.1)
    _log_ticks(axes)
    axes.axvline(1, color="#000000", linewidth=1.2)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel(f"faster than {record.reference}  <  1  <  slower")
    figure.suptitle(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def _span(axes: Axes, least: float, most: float, at: float) -> None:
    """Draw from where to where the rounds were, so that it is seen on dark bars too."""
    axes.plot([least, most], [at, at], color="#ffffff", linewidth=2.2)
    axes.plot([least, most], [at, at], color="#444444", linewidth=0.8)


def _log_ticks(axes: Axes) -> None:
    least, most = axes.get_xlim()
    ticks = [tick for tick in TICKS if least <= tick <= most]
    many = 10  # more would run into each other
    axes.xaxis.set_major_locator(FixedLocator(ticks[::2] if len(ticks) > many else ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda tick, _: f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}")
    )


def _scale(record: Record, scale: str) -> Figure:
    """Draw each figure over the number, or as bars where there is only one number."""
    figures = record.scales[scale].figures
    if len(record.at(scale)) == 1:
        height = len(figures) * (0.22 * len(record.systems) + 0.5)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = figure.subplots(len(figures), 1, squeeze=False).ravel()
        draw = _columns
    else:
        rows = (len(figures) + 1) // 2
        figure = Figure(figsize=(WIDTH, 2.7 * rows + 0.6), layout="constrained")
        grid = figure.subplots(rows, 2, squeeze=False).ravel()
        draw = _lines
    for axes, (name, says) in zip(grid, figures.items(), strict=False):
        draw(record, scale, name, axes)
        axes.set_title(says, fontsize=9)
    for axes in grid[len(figures) :]:
        axes.set_axis_off()
    handles, labels = grid[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _lines(record: Record, scale: str, name: str, axes: Axes) -> None:
    numbers = record.at(scale)
    colours = _colours(record)
    values: list[float] = []
    for place, system in enumerate(record.systems):
        points = [(at, record.point(scale, system, at)) for at in numbers]
        found = [(at, point.figures[name]) for at, point in points if point]
        if not found:
            continue
        if not any(value for _, value in found) and name.startswith("pss"):
            found = []  # there is no daemon
        values += [value for _, value in found]
        axes.plot(
            [at for at, _ in found],
            [value for _, value in found],
            color=colours[system],
            marker=MARKERS[place % len(MARKERS)],
            markersize=4,
            linewidth=1.2,
            label=label(record, system),
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(numbers))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:,.0f}"))
    axes.set_xlabel(scale)
    if min(values, default=0) > 0 and max(values) > DECADE * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, max(values, default=0) * 1.1 or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.grid()


def _columns(record: Record, scale: str, name: str, axes: Axes) -> None:
    at = record.at(scale)[0]
    found = [(system, record.point(scale, system, at)) for system in record.systems]
    points = [(system, point) for system, point in found if point]
    colours = _colours(record)
    places = range(len(points))
    values = [point.figures[name] for _, point in points]
    axes.barh(places, values, color=[colours[system] for system, _ in points])
    for place, (_, point) in zip(places, points, strict=True):
        _span(axes, point.least[name], point.most[name], place)
    axes.set_yticks(places, [label(record, system) for system, _ in points])
    axes.invert_yaxis()
    axes.grid(axis="x")
