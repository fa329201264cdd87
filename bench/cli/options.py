"""What the commands share: options, what these choose, the directory that is worked in."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.errors import BenchError
from bench.systems import SYSTEMS, System, fuse_overlayfs
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
json_option = click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write every sample, and the facts of the machine, to this file.",
)
drop_option = click.option(
    "--drop-caches",
    is_flag=True,
    help="Before the first time on a fresh mount let the kernel drop its caches.",
)
workloads_option = click.option(
    "--workloads", metavar="A,B", help="Those of this name; `list` shows them.  [default: all]"
)


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


def obtain_tree(directory: Path, *, made: bool = False) -> Tree:
    """Return the tree, made first if it is not there."""
    for program in ("tar", "git", "cp"):
        if not shutil.which(program):
            raise click.ClickException(f"the tree is made with {program}: apt install {program}")
    try:
        with alone(directory):
            return obtain(directory, made=made)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
