"""The commands that measure."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench import terminal
from bench.cli.options import (
    alone,
    choose,
    choose_workloads,
    directory_option,
    drop_option,
    json_option,
    obtain_tree,
    peer_option,
    systems_option,
    workloads_option,
)
from bench.errors import BenchError
from bench.files import FILES
from bench.layers import LAYERS
from bench.many import MOUNTS
from bench.measure import How, once
from bench.record import Record, new_record, save
from bench.report import write_report
from bench.requests import Counts, why_not
from bench.rounds import Failure, fits, run_rounds, steps
from bench.scaling import Scale, measure
from bench.start import START
from bench.systems import BARE, SYSTEMS, System
from bench.workloads import WORKLOADS, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.tree import Tree

SCALES = (START, LAYERS, FILES, MOUNTS)
# Those that a quick run has; a whole one measures them in every round, the others in one.
MAIN = ("bare", "overlayfs", "fuse-overlayfs", "auto")
# Of our ways one stands for the others where no data is read.
SCALE_SYSTEMS = ("unionfs-fuse", "mergerfs")


@click.command("list")
def list_() -> None:
    """Show the systems, the workloads, and of what there can be few and many."""
    for system in SYSTEMS:
        click.echo(f"{system.name:20} {system.missing() or system.summary}")
    click.echo()
    for workload in WORKLOADS:
        click.echo(f"{workload.name:20} {workload.does}")
    click.echo()
    for scale in SCALES:
        click.echo(f"{scale.name:20} {scale.does}")


@click.command()
@directory_option
@systems_option
@peer_option
@workloads_option
@click.option("--by-opcode", is_flag=True, help="Show what was asked, not only how often.")
def requests(
    directory: Path,
    systems: str | None,
    peers: tuple[str, ...],
    workloads: str | None,
    by_opcode: bool,
) -> None:
    """Count the requests of each workload; exit with 1 where there are more than allowed."""
    if reason := why_not():
        raise click.ClickException(reason)
    chosen = [system for system in choose(systems, peers) if system.has_daemon]
    tree = obtain_tree(directory)
    counts: dict[tuple[str, str], Counts | Failure] = {}
    wanted = choose_workloads(workloads, [w for w in WORKLOADS if w.in_requests])
    pairs = [(w, s) for w in wanted for s in chosen if fits(w, s)]
    with alone(directory), terminal.progress(len(pairs)) as progress:
        for workload, system in pairs:
            progress(f"{workload.name} on {system.name}")
            counts[workload.name, system.name] = count(system, workload, tree, directory)
    bad = terminal.show_requests(wanted, [system.name for system in chosen], counts, tree)
    if by_opcode:
        terminal.show_opcodes(counts)
    sys.exit(1 if bad else 0)


@click.command()
@directory_option
@systems_option
@peer_option
@workloads_option
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@drop_option
@json_option
def run(  # noqa: PLR0913 - one for each option
    directory: Path,
    systems: str | None,
    peers: tuple[str, ...],
    workloads: str | None,
    rounds: int,
    drop_caches: bool,
    json_path: Path | None,
) -> None:
    """Measure times, side by side, as ratios to the kernel's overlayfs in the same round."""
    chosen = choose(systems, peers)
    wanted = choose_workloads(workloads, WORKLOADS)
    if not chosen or not wanted:
        raise click.ClickException("nothing is left to measure")
    every = {system.name: rounds for system in chosen}
    record = new_record(chosen, directory, rounds=every, drop_caches=drop_caches, workloads=wanted)
    measure_workloads(record, chosen, wanted, directory)
    finish(record, json_path)


@click.command("all")
@directory_option
@systems_option
@peer_option
@click.option("--quick", is_flag=True, help="What can be measured in some minutes.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help=f"In which {', '.join(MAIN)} are measured; the others are in one.",
)
@drop_option
@json_option
@click.option(
    "--docs",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write the report with its plots into this directory.",
)
def all_(  # noqa: PLR0913 - one for each option
    directory: Path,
    systems: str | None,
    peers: tuple[str, ...],
    quick: bool,
    rounds: int,
    drop_caches: bool,
    json_path: Path | None,
    docs: Path | None,
) -> None:
    """Measure everything: the workloads, starts, and many layers, files and mounts."""
    names = systems or (",".join(MAIN) if quick else None)
    chosen = choose(names, peers)
    workloads = [w for w in choose_workloads(None, WORKLOADS) if w.quick or not quick]
    often = {*MAIN, *(peer.rpartition("=")[0] for peer in peers)}
    record = new_record(
        chosen,
        directory,
        rounds={system.name: rounds if system.name in often else 1 for system in chosen},
        drop_caches=drop_caches,
        workloads=workloads,
        scales=SCALES,
    )
    measure_workloads(record, chosen, workloads, directory)
    few = [system for system in chosen if system.name in {*often, *SCALE_SYSTEMS} - {BARE.name}]
    for scale in SCALES:
        numbers = scale.quick if quick else scale.numbers
        times = scale.quick_rounds if quick else scale.rounds
        measure_scale(record, scale, few, numbers, times, directory)
        if json_path:  # what there is, should the rest be interrupted
            save(record, json_path)
    if docs:
        write_report(record, docs)
    finish(record, json_path)


def scale_command(scale: Scale) -> click.Command:
    """Return the command that measures one scale alone."""

    @click.command(scale.name, help=f"Measure {', '.join(scale.figures.values())}.")
    @directory_option
    @systems_option
    @peer_option
    @click.option(
        "--numbers",
        metavar="N,M",
        help=f"Of {scale.name}.  [default: {','.join(map(str, scale.numbers))}]",
    )
    @click.option("--rounds", type=click.IntRange(1), default=scale.rounds, show_default=True)
    @json_option
    def command(
        directory: Path,
        systems: str | None,
        peers: tuple[str, ...],
        numbers: str | None,
        rounds: int,
        json_path: Path | None,
    ) -> None:
        chosen = [system for system in choose(systems, peers) if system.is_union]
        try:
            wanted = [int(number) for number in numbers.split(",")] if numbers else scale.numbers
        except ValueError as error:
            raise click.BadParameter(f"--numbers are numbers: {numbers}") from error
        if min(wanted) < 1:
            raise click.BadParameter("--numbers are 1 or more")
        record = new_record(chosen, directory, scales=[scale])
        measure_scale(record, scale, chosen, wanted, rounds, directory)
        finish(record, json_path)

    return command


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--docs",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write clients.md into this directory.",
)
def clients(rounds: int, docs: Path | None) -> None:
    """Measure podman and containerd, as root and rootless, on unions of each kind."""
    from bench import clients as engines  # what it needs, the tests install

    # what is killed would leave its engines, and their mounts, behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = engines.measure(rounds, lambda text: click.echo(text, err=True))
    page = engines.written(report)
    click.echo(page)
    if docs:
        docs.mkdir(parents=True, exist_ok=True)
        (docs / "clients.md").write_text(page)


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--archive",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An OCI archive of the image `make test-images` has, instead of a new one.",
)
@click.option(
    "--docs",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write images.md into this directory.",
)
def images(rounds: int, archive: Path | None, docs: Path | None) -> None:
    """Measure pulls, unpacking, commits and pushes of a Debian, beside podman and umoci."""
    from bench import image_report  # what it needs, the tests install
    from bench import images as measured

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = measured.measure(rounds, archive, lambda text: click.echo(text, err=True))
    page = image_report.written(report)
    click.echo(page)
    if docs:
        docs.mkdir(parents=True, exist_ok=True)
        (docs / "images.md").write_text(page)


def measure_workloads(
    record: Record, systems: Sequence[System], workloads: Sequence[Workload], directory: Path
) -> None:
    """Measure times and, where that is possible, requests into `record`."""
    reason = why_not()
    if reason:
        click.echo(f"requests are not counted: {reason}", err=True)
    tree = obtain_tree(directory)
    how = How(count=not reason, drop_caches=record.drop_caches)
    rounds = {name: facts.rounds for name, facts in record.systems.items()}
    total = steps(systems, workloads, rounds)
    with alone(directory), terminal.progress(total) as progress:
        found = run_rounds(systems, workloads, tree, directory, rounds, how, progress)
    record.results.samples.update(found.samples)
    record.results.counts.update(found.counts)
    record.results.failures += found.failures
    record.note_load()


def measure_scale(
    record: Record,
    scale: Scale,
    systems: Sequence[System],
    numbers: Sequence[int],
    rounds: int,
    directory: Path,
) -> None:
    """Measure few and many into `record`."""
    total = len(systems) * rounds * len(numbers)
    with alone(directory), terminal.progress(total) as progress:
        points, failures = measure(scale, systems, numbers, rounds, directory, progress)
    record.points.extend(points)
    record.results.failures += failures
    record.note_load()


def finish(record: Record, json_path: Path | None) -> None:
    """Show and keep what was measured; exit with 1 if something of ours has failed."""
    if record.workloads:
        terminal.show_times(record)
    terminal.show_points(record)
    if json_path:
        save(record, json_path)
    ours = {name for name, facts in record.systems.items() if facts.ours}
    sys.exit(1 if any(failure.system in ours for failure in record.results.failures) else 0)


def count(system: System, workload: Workload, tree: Tree, directory: Path) -> Counts | Failure:
    """Return the requests of one run, or why there is no count."""
    try:
        return once(system, workload, tree, directory, How(count=True)).counts or Counts()
    except BenchError as error:
        return Failure(system.name, str(error))


COMMANDS = (list_, requests, run, all_, clients, images, *map(scale_command, SCALES))
