"""Change one file in every way that there is, and compare it with a model after each.

A round takes one file of a lower layer (of some size, with holes or without), and draws its
operations from a seed: reads, writes, appends, mappings, truncations, every mode of fallocate,
copies within it and from another, changes of its attributes and names, several descriptors at a
time; and a remount now and then. In the end the upper has to hold what the model has, and the
lower what it had.

    python -m tests.fsx --seconds 600 --session kernel --io cached
    python -m tests.fsx --seed 7                       one round again, just as it was
    python -m tests.fsx --program bare                 on the filesystem itself: tests the model
    python -m tests.fsx --program overlayfs
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.fsx_calls import FUSE_MODES, Calls, carried_modes, has_direct
from tests.support.fsx_file import (
    DIRECTORIES,
    NAME,
    OTHER,
    Difference,
    Terms,
    TestedFile,
    closing,
)
from tests.support.mounts import Layers, public_directory
from tests.support.programs import served
from tests.support.sessions import KERNEL_PASSTHROUGH, PYFUSE3, Session, chosen_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

PROGRAMS = ("unionfuse", "overlayfs", "fuse-overlayfs", "bare")
SIZES = (0, 1, 4095, 5000, 65_536, 300_000, 1 << 20, 1_600_000, 3 << 20)
REMOUNT_EVERY = 400  # operations, on average
ORPHAN_STEPS = 60


@dataclass(frozen=True)
class Round:
    """All that a round depends on, beside the program."""

    seed: int
    n_ops: int = 1000


def run(plan: Round, program: str = "unionfuse", calls: Calls | None = None) -> None:
    """Do one round.

    Raises:
        AssertionError: There is a difference, or a mount failed.
    """
    rng = random.Random(plan.seed)
    with public_directory() as base:
        layers = Layers.create(base / "union", 2)
        content = _content(rng)
        root = layers.upper if program == "bare" else layers.lowers[rng.randrange(2)]
        _plant(root, content)
        terms = _terms(program, base)
        file = TestedFile(rng, calls or Calls(), terms, content)
        ends_nameless = rng.random() < 0.25
        try:
            for n_ops in _stretches(rng, plan.n_ops):
                with _serving(program, layers) as mnt, closing(file):
                    file.mounted(mnt)
                    file.check()
                    for _ in range(n_ops):
                        file.step()
                file.last.append("remount")
            _check_layers(file, layers, root, content)
            if ends_nameless:
                _end_nameless(file, program, layers)
        except AssertionError as error:
            raise Difference(_described(plan, program, file, error)) from error


def _serving(program: str, layers: Layers) -> contextlib.AbstractContextManager[Path]:
    if program == "bare":
        return contextlib.nullcontext(layers.upper)
    return served(layers)


def _stretches(rng: random.Random, n_ops: int) -> Iterator[int]:
    """Yield how many operations there are between two remounts."""
    while n_ops > 0:
        count = min(n_ops, 1 + int(rng.expovariate(1 / REMOUNT_EVERY)))
        yield count
        n_ops -= count
    yield 0  # the last one only looks


def _terms(program: str, base: Path) -> Terms:
    modes = carried_modes(base)
    session = chosen_session()
    if program == "fuse-overlayfs":
        modes &= FUSE_MODES
    elif program == "unionfuse":
        modes &= frozenset() if session == PYFUSE3 else FUSE_MODES
    keeps_old = program == "overlayfs" or session == KERNEL_PASSTHROUGH
    return Terms(modes, has_direct(base), keeps_old, os.geteuid() == 0)


def _content(rng: random.Random) -> bytes:
    size = rng.choice(SIZES)
    content = bytearray(rng.randbytes(size))
    for _ in range(rng.choice((0, 0, 1, 5)) if size > 20_000 else 0):
        begin = rng.randrange(size)
        length = min(rng.choice((4096, 100_000, size // 2)), size - begin)
        content[begin : begin + length] = bytes(length)
    return bytes(content)


def _plant(root: Path, content: bytes) -> None:
    """Make the files, with holes where there are zeros."""
    for directory in DIRECTORIES:
        (root / directory).mkdir()
    for name in (NAME, OTHER):
        with open(root / name, "wb") as file:
            for begin in range(0, len(content), 4096):
                page = content[begin : begin + 4096]
                if any(page):
                    file.seek(begin)
                    file.write(page)
            file.truncate(len(content))


def _check_layers(file: TestedFile, layers: Layers, root: Path, content: bytes) -> None:
    """Look at the layers by themselves."""
    if root != layers.upper:
        for name in (NAME, OTHER):
            assert (root / name).read_bytes() == content, f"{name} of the lower was changed"
    if file.has_own_data:
        for name in sorted(file.names):
            found = (layers.upper / name).read_bytes()
            assert found == file.data, f"the upper has another {name}"


def _end_nameless(file: TestedFile, program: str, layers: Layers) -> None:
    """Go on with a file that is open and has no name any more."""
    with _serving(program, layers) as mnt, closing(file):
        file.mounted(mnt)
        file.step()
        file.lose_its_names()
        for _ in range(ORPHAN_STEPS):
            file.step()


def _described(plan: Round, program: str, file: TestedFile, error: AssertionError) -> str:
    again = f"python -m tests.fsx --seed {plan.seed} --ops {plan.n_ops} --program {program}"
    session = chosen_session()
    if session:
        again += f" --session {session.session}" + (f" --io {session.io}" if session.io else "")
    lines = [f"  {line}" for line in file.last]
    return "\n".join([f"after operation {file.count}: {error}", *lines, f"see it again: {again}"])


# --- The command ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    if options.session:
        os.environ.update(Session(options.session, options.io).environment)
    if options.program != "bare":
        os.environ["UNIONFUSE_TEST_PROGRAM"] = options.program
    seeds: Iterable[int] = [options.seed]
    if options.seed is None:
        seeds = itertools.count(random.SystemRandom().randrange(1 << 30))
    begin = time.monotonic()
    for number, seed in enumerate(seeds, start=1):
        try:
            run(Round(seed, options.ops), options.program)
        except AssertionError as error:
            print(f"seed {seed}: {error}", flush=True)
            return 1
        passed = time.monotonic() - begin
        done = f"{number * options.ops} operations in {passed:.0f} s"
        print(f"round {number}: seed {seed}, {done}", flush=True)
        if passed > options.seconds:
            break
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fsx", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=60, help="stop after the round then (60)")
    parser.add_argument("--seed", type=int, help="run this one round")
    parser.add_argument("--ops", type=int, default=1000, help="operations in a round (1000)")
    parser.add_argument("--session", help="as of unionfuse mount")
    parser.add_argument("--io", help="as of unionfuse mount")
    program = os.environ.get("UNIONFUSE_TEST_PROGRAM", "unionfuse")
    parser.add_argument("--program", choices=PROGRAMS, default=program, help="what is under test")
    options = parser.parse_args(arguments)
    if options.io and not options.session:
        parser.error("--io needs a --session")
    return options


if __name__ == "__main__":
    sys.exit(main())
