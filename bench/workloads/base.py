"""The shape of a workload, and what several of them use."""

from __future__ import annotations

import functools
import os
import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from bench.errors import WrongResult
from bench.workloads import floors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bench.tree import Tree
    from bench.workloads.floors import Floor

T = TypeVar("T")

TIMEOUT = 600.0  # seconds; the slowest system needs a tenth of it for the longest workload
# With the write-back cache the kernel writes times that are old enough while others still work.
WRITTEN_BACK = frozenset({"cached"})
ENV = {**os.environ, "LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class Context:
    """Where a workload works."""

    mnt: Path
    upper: Path  # what is put here before the mount is in its upper; `mnt` itself where no union is
    scratch: Path  # a new directory beside the mount, for what does not go into it
    tree: Tree


@functools.cache
def wanted(run: Callable[[Context], T], tree: Tree) -> T:
    """Return what `run`, which changes nothing, gives on the same tree without a union."""
    return run(Context(tree.merged, tree.base, tree.base, tree))


def nothing(_context: Context) -> None:
    """Do nothing: a workload that needs no preparation."""


def no_check(_context: Context, _result: object) -> None:
    """Check nothing: the other check of the workload does."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One thing that users do, measured from its first to its last call."""

    name: str
    does: str  # what a user does when they do that, in a line
    run: Callable[[Context], object]  # what is measured; what it returns is checked
    before_mount: Callable[[Context], None] = nothing  # puts things into the upper
    prepare: Callable[[Context], None] = nothing  # on the mount, not measured
    warm: int = 0  # how often `run` is done before it is measured
    verify: Callable[
        ..., None
    ]  # given the context and the result, on the mount, raises WrongResult
    verify_upper: Callable[..., None] = no_check  # after it is unmounted
    changes: tuple[str, ...] = ()  # parts of the tree that it changes
    needs: tuple[str, ...] = ()  # programs
    reads_only: bool = False  # also for a system that copies nothing up
    quick: bool = False  # part of the run of some minutes
    # Systems on which the number of requests depends on the clock, or on who of two comes first.
    unsteady: frozenset[str] = frozenset()
    limits: Mapping[str, int] = field(default_factory=dict)  # requests, by name of the system
    # The requests that no daemon avoids, since the kernel asks all the same; by name of the system.
    floor: Floor = floors.nothing
    # Part of the comparison of request counts, whether there is a limit for a system or not.
    in_requests: bool = False

    def allowed(self, system: str, tree: Tree) -> int | None:
        """Return how many requests a system may make, None where there is no limit."""
        limit = self.limits.get(system)
        return None if limit is None else max(limit, self.floor(tree).get(system, 0))


def times(
    workload: Workload,
    *,
    limits: dict[str, int] | None = None,
    floor: tuple[Floor, Floor] = (floors.nothing, floors.nothing),
    quick_cold: bool = False,
) -> tuple[Workload, ...]:
    """Return a workload for the first, the second and, with limits, the third time on a mount.

    The limits of requests are for the second and the third one. These are two things: on the
    first one the kernel notes that each access time it knows is old, on the second it asks for
    them. `floor` is for the second and the third one. Of a quick workload the second is in the
    quick run, with `quick_cold` the first too.
    """
    name, does = workload.name, workload.does
    first = replace(
        workload, name=f"{name}-cold", does=f"{does}, on a fresh mount", quick=quick_cold
    )
    second = replace(
        first,
        name=name,
        does=f"{does}, for the second time",
        warm=1,
        limits=limits or {},
        floor=floor[0],
        in_requests=limits is not None,
        quick=workload.quick,
    )
    third = replace(
        second,
        name=f"{name}-again",
        does=f"{does}, for the third time",
        warm=2,
        floor=floor[1],
        quick=False,
    )
    return (first, second, third) if limits is not None else (first, second)


def command(
    context: Context, *arguments: str | Path, env: Mapping[str, str] | None = None
) -> bytes:
    """Run a program in the mount and return what it prints; it must succeed."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=context.mnt,
        env=env or ENV,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace")[-500:]
        raise WrongResult(f"{arguments[0]} ended with {done.returncode}: {said}")
    return done.stdout


def expect(what: str, got: object, wanted: object) -> None:
    """Raise unless two things are equal.

    Raises:
        WrongResult: They are not.
    """
    if got != wanted:
        raise WrongResult(f"{what}: {got!r}, not {wanted!r}")
