"""The command line of the benchmark."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench import report
from bench.errors import BenchError
from bench.layers import NUMBERS, measure_layers
from bench.measure import once
from bench.requests import Counts, why_not
from bench.rounds import as_json, run_rounds
from bench.start import measure_start
from bench.systems import BARE, OVERLAYFS, SYSTEMS, System, fuse_overlayfs
from bench.tree import Tree, obtain
from bench.workloads import WORKLOADS, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DIRECTORY = Path("/var/tmp/unionfuse-bench")


directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DIRECTORY,
    show_default=True,
    help="Where the tree is kept and the mounts are made; not on a tmpfs.",
)
peer_option = click.option(
    "--fuse-overlayfs",
    "peers",
    metavar="[NAME=]PATH",
    multiple=True,
    help="Another fuse-overlayfs program to compare with.",
)
systems_option = click.option(
    "--systems", metavar="A,B", help=f"Of {', '.join(system.name for system in SYSTEMS)}."
)
workloads_option = click.option(
    "--workloads", metavar="A,B", help="Those of this name; `list` shows them.  [default: all]"
)


@click.group()
def main() -> None:
    """Compare union filesystems."""


@main.command("list")
def list_() -> None:
    """Show the systems and the workloads."""
    for system in SYSTEMS:
        click.echo(f"{system.name:20} {system.missing() or system.summary}")
    click.echo()
    for workload in WORKLOADS:
        click.echo(f"{workload.name:20} {workload.does}")


@main.command()
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
    chosen = [s for s in choose(systems, peers) if s.name not in {"bare", "overlayfs"}]
    tree = obtain_tree(directory)
    counts: dict[tuple[str, str], Counts | str] = {}
    wanted = choose_workloads(workloads, [w for w in WORKLOADS if w.in_requests])
    with alone(directory), report.progress(len(wanted) * len(chosen)) as progress:
        for workload in wanted:
            for system in chosen:
                progress(f"{workload.name} on {system.name}")
                counts[workload.name, system.name] = count(system, workload, tree, directory)
    bad = report.show_requests(wanted, [system.name for system in chosen], counts, tree)
    if by_opcode:
        report.show_opcodes(counts)
    sys.exit(1 if bad else 0)


@main.command()
@directory_option
@systems_option
@peer_option
@workloads_option
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write every sample, and the facts of the machine, to this file.",
)
def run(
    directory: Path,
    systems: str | None,
    peers: tuple[str, ...],
    workloads: str | None,
    rounds: int,
    json_path: Path | None,
) -> None:
    """Measure times, side by side, as ratios to the kernel's overlayfs in the same round."""
    chosen = choose(systems, peers)
    wanted = choose_workloads(workloads, WORKLOADS)
    tree = obtain_tree(directory)
    names = [system.name for system in chosen]
    if not chosen or not wanted:
        raise click.ClickException("nothing is left to measure")
    with alone(directory), report.progress(len(chosen) * (1 + rounds * len(wanted))) as progress:
        results = run_rounds(chosen, wanted, tree, directory, rounds, progress)
    reference = OVERLAYFS.name if OVERLAYFS.name in names else names[0]
    report.show_times(results, [workload.name for workload in wanted], names, reference)
    if json_path:
        json_path.write_text(json.dumps(as_json(results, chosen, rounds), indent=1))
    sys.exit(1 if results.failures else 0)


@main.command()
@directory_option
@systems_option
@peer_option
@click.option("--numbers", metavar="N,M", help="Of layers.  [default: 1,5,20,64,128,400]")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
def layers(
    directory: Path,
    systems: str | None,
    peers: tuple[str, ...],
    numbers: str | None,
    rounds: int,
) -> None:
    """Measure what mounting and lookups cost with 1 to 400 layers."""
    chosen = [system for system in choose(systems, peers) if system is not BARE]
    wanted = [int(number) for number in numbers.split(",")] if numbers else NUMBERS
    with alone(directory), report.progress(len(chosen) * rounds * len(wanted)) as progress:
        found = measure_layers(chosen, wanted, directory, rounds, progress)
    report.show_layers(found, [system.name for system in chosen], wanted)
    sys.exit(1 if any(isinstance(sample, str) for sample in found.values()) else 0)


@main.command()
@directory_option
@systems_option
@peer_option
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True)
def start(directory: Path, systems: str | None, peers: tuple[str, ...], rounds: int) -> None:
    """Measure how long it takes from exec to the first answer."""
    chosen = choose(systems, peers)
    tree = obtain_tree(directory)
    with alone(directory), report.progress(rounds * len(chosen)) as progress:
        found = measure_start(chosen, tree, directory, rounds, progress)
    report.show_start(found)
    sys.exit(1 if any(isinstance(times, str) for times in found.values()) else 0)


def count(system: System, workload: Workload, tree: Tree, directory: Path) -> Counts | str:
    """Return the requests of one run, or why there is no count."""
    try:
        return once(system, workload, tree, directory, count=True).counts
    except BenchError as error:
        return str(error)


def choose(names: str | None, peers: tuple[str, ...]) -> list[System]:
    """Return the systems that are wanted and there; say of the others how to install them."""
    known = {system.name: system for system in SYSTEMS}
    for number, peer in enumerate(peers, 2):
        name, _, path = peer.rpartition("=")
        name = name or f"fuse-overlayfs-{number}"
        known[name] = fuse_overlayfs(str(Path(path).resolve()), name)
    chosen = []
    for name in names.split(",") if names else known:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}")
        if missing := known[name].missing():
            click.echo(f"{name} is left out: {missing}", err=True)
        else:
            chosen.append(known[name])
    return chosen


def choose_workloads(names: str | None, otherwise: Sequence[Workload]) -> list[Workload]:
    """Return the workloads that are wanted and possible; say what the others need."""
    known = {workload.name: workload for workload in WORKLOADS}
    for name in names.split(",") if names else ():
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}")
    chosen = []
    for workload in [known[name] for name in names.split(",")] if names else otherwise:
        if missing := [program for program in workload.needs if not shutil.which(program)]:
            click.echo(f"{workload.name} is left out: it needs {', '.join(missing)}", err=True)
        else:
            chosen.append(workload)
    return chosen


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Have `directory` for ourselves; wait for another benchmark in it."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            click.echo(f"waiting for another benchmark in {directory}", err=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def obtain_tree(directory: Path) -> Tree:
    """Return the tree, and say so if it must be made first."""
    for program in ("tar", "git", "cp"):
        if not shutil.which(program):
            raise click.ClickException(f"the tree is made with {program}: apt install {program}")
    try:
        with alone(directory):
            return obtain(directory)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
