"""Run the same random operations on two unions and tell where they part.

One is the union under test, the other the kernel's overlayfs on equal layers. After each operation
the outcomes must be equal, every now and then and in the end the merged trees too; after the
unmount the lowers must be as they were, no temporary may be left, and each one's upper must show
the same tree through the other one.

    python -m tests.fuzz                      fresh seeds until a difference or an interrupt
    python -m tests.fuzz --seed 7 --ops 500   one round again, shrunk if it fails
    python -m tests.fuzz --replay FILE        the operations that a failure printed
    python -m tests.fuzz --session kernel --io cached --processes 2
    python -m tests.fuzz --rootless           both in a user namespace, overlayfs with `userxattr`
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import tree
from tests.support.mounts import (
    ROOTLESS_KERNEL_OPTIONS,
    Layers,
    fuse_overlayfs_mount,
    overlay_mount,
    public_directory,
    union_mount,
)
from tests.support.ops import Generator, Hang, Op, Outcome, Workers
from tests.support.sessions import Session, session_option
from tests.support.users import run_in_user_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager


@dataclass(frozen=True)
class System:
    """An implementation of unions."""

    mount: Callable[[Layers], AbstractContextManager[Path]]
    entry_inos: bool = True  # its directory entries tell the inode numbers that lstat tells

    def show(self, mountpoint: Path, workers: Workers) -> dict[bytes, tree.Record]:
        """Record the tree that the system serves there."""
        shown: dict[bytes, tree.Record] = workers.call(
            tree.snapshot, mountpoint, entry_inos=self.entry_inos
        )
        if tree.IS_ROOTLESS:
            # Without origins overlayfs tells two numbers for two names of a copied-up file.
            return {name: replace(record, same_file_as=None) for name, record in shown.items()}
        return shown


UNIONFUSE = System(union_mount)
# A listing that overlayfs has cached may tell a hard link's inode number from before its copy-up.
OVERLAYFS = System(overlay_mount, entry_inos=False)
if tree.IS_ROOTLESS:
    OVERLAYFS = System(partial(overlay_mount, options=ROOTLESS_KERNEL_OPTIONS), entry_inos=False)

PROGRAMS = {
    "unionfuse": UNIONFUSE,
    "overlayfs": OVERLAYFS,
    "fuse-overlayfs": System(fuse_overlayfs_mount, entry_inos=False),
}

N_LOWERS = (1, 2, 3, 3, 3, 5, 8, 20)  # of which the seed chooses
SAME_START = 12  # characters that tell the kind of a difference


def n_lowers(seed: int) -> int:
    """Return how many lowers there are below the unions of a round."""
    return random.Random(seed).choice(N_LOWERS)


@dataclass(frozen=True)
class Plan:
    """All that a comparison depends on."""

    layers_seed: int
    ops: Sequence[Op]
    check_every: int = 50  # operations between two comparisons of the trees
    drop_caches_every: int = 0  # operations between two times that the kernel forgets; 0 is never
    exchange_uppers: bool = True

    @classmethod
    def from_seed(
        cls, seed: int, n_ops: int, *, check_every: int = 50, drop_caches_every: int = 0
    ) -> Plan:
        """Return the plan that `--seed SEED --ops N_OPS` makes."""
        with public_directory() as base:
            layers = Layers.create(base, n_lowers(seed))
            known = tree.build_layers(layers.lowers, layers.upper, seed)
        ops = Generator(seed, known).draw(n_ops)
        return cls(seed, ops, check_every, drop_caches_every)


@dataclass(frozen=True)
class Difference:
    """Where two unions part."""

    index: int  # of the last operation before it
    what: str

    def describe(self, plan: Plan, n_last: int = 8) -> str:
        """Return the text of a failure, with all that is needed to see it again."""
        begin = max(0, self.index + 1 - n_last)
        shown = [
            f"{begin + n:6} {_to_line(op)}" for n, op in enumerate(plan.ops[begin : self.index + 1])
        ]
        again = f"python -m tests.fuzz --seed {plan.layers_seed} --ops {len(plan.ops)}"
        again += f" --check-every {plan.check_every} --drop-caches {plan.drop_caches_every}"
        again = " ".join([again, *session_option()])
        return "\n".join(
            [f"after operation {self.index}: {self.what}", *shown, f"see it again: {again}"]
        )


@dataclass(frozen=True)
class Side:
    """One of the two unions of a comparison."""

    system: System
    layers: Layers

    def mount(self) -> AbstractContextManager[Path]:
        """Mount it for the time of a `with` block."""
        return self.system.mount(self.layers)


def compare(plan: Plan, subject: System, oracle: System, workers: Workers) -> Difference | None:
    """Run `plan` on both systems; return the first difference, or None.

    Raises:
        AssertionError: A mount or unmount failed, or a daemon logged an error.
    """
    with public_directory() as base:
        count = n_lowers(plan.layers_seed)
        sides = (
            Side(oracle, Layers.create(base / "oracle", count)),
            Side(subject, Layers.create(base / "subject", count)),
        )
        for side in sides:
            tree.build_layers(side.layers.lowers, side.layers.upper, plan.layers_seed)
        before = [tree.snapshot(lower, times="exact") for lower in sides[1].layers.lowers]
        last = len(plan.ops) - 1
        try:
            with sides[0].mount() as theirs, sides[1].mount() as ours:
                try:
                    if found := _compare_operations(plan, sides, workers):
                        return found
                    shown = oracle.show(theirs, workers)
                finally:
                    for mountpoint in (theirs, ours):
                        workers.close_files(bytes(mountpoint))
            lines = _remains(sides[1].layers, before)
            if not lines and plan.exchange_uppers:
                lines = _exchange_uppers(sides, shown, workers)
        except Hang as hang:
            lines = [str(hang)]
        return Difference(last, "\n".join(lines)) if lines else None


def _compare_operations(
    plan: Plan, sides: tuple[Side, Side], workers: Workers
) -> Difference | None:
    theirs, ours = (bytes(side.layers.mnt) for side in sides)
    for index, op in enumerate(plan.ops):
        expected = workers.run(theirs, op)
        actual = workers.run(ours, op)
        if expected != actual:
            text = f"the outcome should be {_short(expected)}, is {_short(actual)}"
            return Difference(index, text)
        if plan.drop_caches_every and index % plan.drop_caches_every == 0:
            # Dentries and inodes only; what is cached of file data is not the matter here.
            Path("/proc/sys/vm/drop_caches").write_text("2")
        is_due = plan.check_every and (index + 1) % plan.check_every == 0
        if (is_due or index + 1 == len(plan.ops)) and (lines := _compare_trees(sides, workers)):
            return Difference(index, "\n".join(lines))
    return None


def _compare_trees(sides: tuple[Side, Side], workers: Workers) -> list[str]:
    try:
        expected, actual = (side.system.show(side.layers.mnt, workers) for side in sides)
    except (OSError, AssertionError) as error:
        return [f"the tree cannot be read: {error!r}"]
    lines = tree.diff(expected, actual)
    return ["the trees differ:", *lines] if lines else []


def _remains(layers: Layers, before: Sequence[dict[bytes, tree.Record]]) -> list[str]:
    """Return what is wrong with the layers after their unmount."""
    for lower, then in zip(layers.lowers, before, strict=True):
        if lines := tree.diff(then, tree.snapshot(lower, times="exact")):
            return [f"{lower.name} was changed:", *lines]
    left = sorted(path.name for path in (layers.work / "work").glob("*"))
    return [f"left over in the workdir: {left}"] if left else []


def _exchange_uppers(
    sides: tuple[Side, Side], shown: dict[bytes, tree.Record], workers: Workers
) -> list[str]:
    """Mount each one's layers with the other one; both must show what was shown before."""
    theirs, ours = sides
    for what, side in (
        ("the oracle's upper through the subject", Side(ours.system, theirs.layers)),
        ("the subject's upper through the oracle", Side(theirs.system, ours.layers)),
    ):
        with side.mount() as mountpoint:
            try:
                lines = tree.diff(shown, side.system.show(mountpoint, workers))
            except (OSError, AssertionError) as error:
                lines = [f"cannot be read: {error!r}"]
        if lines:
            return [f"{what} shows another tree:", *lines]
    return []


def shrink(
    plan: Plan,
    first: Difference,
    still_fails: Callable[[Plan], Difference | None],
    seconds: float,
) -> tuple[Plan, Difference]:
    """Return the smallest plan found in `seconds` that fails in the same way, and its difference.

    Parts of the plan are left out, ever smaller ones. The same way is the same kind of difference,
    of which there may be several; each is as good to look at.
    """
    deadline = time.monotonic() + seconds
    best = first
    size = len(plan.ops) // 2
    while size >= 1 and time.monotonic() < deadline:
        begin = 0
        while begin < len(plan.ops) and time.monotonic() < deadline:
            ops = [*plan.ops[:begin], *plan.ops[begin + size :]]
            smaller = replace(plan, ops=ops)
            difference = still_fails(smaller) if ops else None
            if difference and difference.what[:SAME_START] == first.what[:SAME_START]:
                # What follows the difference had no part in it.
                plan = replace(smaller, ops=ops[: difference.index + 1])
                best = difference
            else:
                begin += size
        size //= 2
    return plan, best


def _to_line(op: Op) -> str:
    """Return an operation as a line of Python, in which the longest name does not hide the rest."""
    return repr(tuple(op)).replace("n" * 255, "<n*255>")


def _from_line(line: str) -> Op:
    return Op(*ast.literal_eval(line.replace("<n*255>", "n" * 255)))


def _short(outcome: Outcome, limit: int = 400) -> str:
    text = repr(outcome)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


# --- The command ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    if options.session:
        os.environ.update(Session(options.session, options.io).environment)
    if options.rootless and not tree.IS_ROOTLESS:
        given = sys.argv[1:] if arguments is None else arguments
        command = [sys.executable, "-m", "tests.fuzz", *given]
        return run_in_user_namespace(lambda: subprocess.run(command, check=False).returncode)
    if options.processes > 1:
        return _run_several(options.processes, sys.argv[1:] if arguments is None else arguments)
    subject = PROGRAMS[options.program]
    with Workers() as workers:

        def failing(plan: Plan) -> Difference | None:
            try:
                return compare(plan, subject, OVERLAYFS, workers)
            except AssertionError as error:
                return Difference(len(plan.ops) - 1, str(error))

        begin = time.monotonic()
        n_ops = 0
        for number, seed in enumerate(_seeds(options), start=1):
            plan = Plan.from_seed(
                seed,
                options.ops,
                check_every=options.check_every,
                drop_caches_every=options.drop_caches,
            )
            if options.replay:
                lines = options.replay.read_text().splitlines()
                ops = [_from_line(line) for line in lines if line.startswith("(")]
                plan = replace(plan, ops=ops)
            difference = failing(plan)
            n_ops += len(plan.ops)
            passed = time.monotonic() - begin
            print(f"round {number}: seed {seed}, {n_ops} operations in {passed:.0f} s", flush=True)
            if difference:
                print(difference.describe(plan), flush=True)
                _report_shrunk(plan, difference, failing, options.shrink_seconds)
                return 1
            if options.seed is not None or (options.seconds and passed > options.seconds):
                return 0
    return 0


def _run_several(processes: int, arguments: Sequence[str]) -> int:
    """Run the command in several processes, each on unions of its own; return their exit code."""
    command = [sys.executable, "-m", "tests.fuzz", *arguments, "--processes", "1"]
    started = [subprocess.Popen(command) for _ in range(processes)]
    return max(process.wait() for process in started)


def _report_shrunk(
    plan: Plan,
    difference: Difference,
    failing: Callable[[Plan], Difference | None],
    seconds: float,
) -> None:
    if not seconds:
        return
    plan = replace(plan, ops=plan.ops[: difference.index + 1])
    small, last = shrink(plan, difference, failing, seconds)
    print(f"shrunk to {len(small.ops)} operations: {last.what}")
    print(f"run again by --seed {plan.layers_seed} --replay FILE with these lines in it:")
    for op in small.ops:
        print(_to_line(op))


def _seeds(options: argparse.Namespace) -> itertools.chain[int] | list[int]:
    if options.seed is not None:
        return [options.seed]
    first = random.SystemRandom().randrange(1 << 30)
    return itertools.chain(itertools.count(first))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, help="stop after the round that ends later")
    parser.add_argument("--seed", type=int, help="run this one round")
    parser.add_argument("--ops", type=int, default=500, help="operations in a round (500)")
    parser.add_argument("--program", choices=PROGRAMS, default="unionfuse", help="union under test")
    parser.add_argument("--session", help="as of unionfuse mount")
    parser.add_argument("--io", help="as of unionfuse mount")
    several = "as many at once, each with seeds of its own (1)"
    parser.add_argument("--processes", type=int, default=1, help=several)
    where = "mount both in a user namespace"
    parser.add_argument("--rootless", action="store_true", help=where)
    parser.add_argument("--replay", type=Path, help="run the operations of this file")
    every = "operations between two"
    parser.add_argument("--check-every", type=int, default=50, help=f"{every} looks at the trees")
    parser.add_argument("--drop-caches", type=int, default=0, help=f"{every} drops of caches")
    parser.add_argument("--shrink-seconds", type=float, default=120.0, help="0 does not shrink")
    options = parser.parse_args(arguments)
    if options.replay and options.seed is None:
        parser.error("--replay needs the --seed of its layers")
    if options.io and not options.session:
        parser.error("--io needs a --session")
    if options.processes > 1 and options.seed is not None:
        parser.error("one --seed is one round: it takes one process")
    return options


if __name__ == "__main__":
    sys.exit(main())
