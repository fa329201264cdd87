"""Let several processes work on one union as hard as they can, and see that nothing goes wrong.

Each changes a subtree of its own, which has to be what its model says, and hands files and names to
the next one, which has to see them as they are (see tests/support/stress_*.py). Meanwhile the
kernel forgets its nodes every now and then. In the end everything is compared, after a remount
again, and no lower may have been touched.

    python -m tests.stress --seconds 600 --processes 8 --session kernel --io cached
    python -m tests.stress --program overlayfs            the same on the kernel's overlayfs
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import stress_held, stress_own, stress_shared
from tests.support.mounts import Layers, public_directory
from tests.support.programs import served
from tests.support.sessions import Session
from tests.support.stress_held import Held
from tests.support.stress_own import OwnTree, model_of
from tests.support.stress_shared import Ring, Shared

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

N_LOWERS = 3
PATIENCE = 60.0  # seconds in which every process has to end what it does
POOL_A_SECOND, LARGEST_POOL = 5, 1500


@dataclass(frozen=True)
class Plan:
    """What to do, and for how long."""

    seconds: float
    processes: int
    seed: int
    forget_every: float  # seconds between two times that the kernel forgets; 0 is never

    @property
    def pool(self) -> int:
        """How many lower files each process has to hold open."""
        return min(20 + int(POOL_A_SECOND * self.seconds), LARGEST_POOL)


# --- One process ----------------------------------------------------------------------------------


class Worker:
    """What one of the processes does."""

    def __init__(self, plan: Plan, layers: Layers, index: int, ring: Ring) -> None:
        rng = random.Random(f"{plan.seed} {index}")
        self._rng, self._ring = rng, ring
        self._own = OwnTree(
            layers.mnt / f"own-{index}", model_of(layers.lowers, f"own-{index}"), rng
        )
        self._shared = Shared(layers.mnt / "shared", index, plan.processes, rng, ring)
        self._held = Held(layers.mnt, index, rng, ring)

    def work(self, seconds: float) -> str:
        """Change and look for so many seconds; return how much was done."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for _ in range(self._rng.randrange(8)):
                self._own.step()
            for _ in range(3):
                self._ring.serve()
                self._shared.step()
            if self._rng.random() < 0.1:
                self._held.step()
        while self._ring.pending:
            self._ring.serve(0.01)
        counts = (self._own.count, self._shared.count, self._held.count)
        return "%d in its own subtree, %d shared, %d held" % counts  # noqa: UP031 - a tuple

    def serve(self) -> None:
        """Look at what the process before still hands over."""
        self._ring.serve(0.01)

    def close(self) -> None:
        """Close every file of the union."""
        self._own.close()
        self._shared.close()

    def check(self) -> None:
        """Compare all that is this process's own."""
        self._own.check()
        self._shared.check()
        self._held.check()


def run_worker(
    control: Connection, plan: Plan, layers: Layers, index: int, ring: tuple[Connection, Connection]
) -> None:
    """Do what the coordinator says and answer with how it went; runs in a process of its own."""
    worker: Worker | None = None
    try:
        worker = Worker(plan, layers, index, Ring(*ring))
        control.send("ready")
        while True:
            # the process before may go on when this one is at its end
            while not control.poll():
                worker.serve()
            order, *arguments = control.recv()
            control.send(getattr(worker, order)(*arguments) or "done")
    except (EOFError, BrokenPipeError):
        return  # another process has ended
    except BaseException:
        with contextlib.suppress(BrokenPipeError):
            control.send(Failure(f"process {index}: {traceback.format_exc()}"))


# --- All of them ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """What a process has found."""

    what: str


class Processes:
    """The workers, to which one thing at a time is said."""

    def __init__(self, plan: Plan, layers: Layers) -> None:
        # spawned, not forked: a process must hold no files of its parent's
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(plan.processes)]  # (to the next, from the previous)
        self._controls: list[Connection] = []
        self._processes: list[Any] = []
        for index in range(plan.processes):
            ours, theirs = context.Pipe()
            ring = (pipes[index - 1][1], pipes[index][0])
            process = context.Process(
                target=run_worker, args=(theirs, plan, layers, index, ring), daemon=True
            )
            process.start()
            theirs.close()
            self._controls.append(ours)
            self._processes.append(process)
        for pipe in pipes:
            pipe[0].close()
            pipe[1].close()

    def ask(self, *order: object, seconds: float = 0) -> list[str]:
        """Let all of them do it and return their answers.

        Raises:
            AssertionError: One has found a fault, or has not answered in time.
        """
        for control in self._controls:
            with contextlib.suppress(BrokenPipeError):  # its last words are still to be read
                control.send(order)
        return self.answers(seconds)

    def answers(self, seconds: float = 0) -> list[str]:
        """Wait for an answer of each."""
        deadline = time.monotonic() + seconds + PATIENCE
        waiting = dict(enumerate(self._controls))
        found: dict[int, str] = {}
        ended = []
        while waiting and time.monotonic() < deadline:
            for control in connection.wait(list(waiting.values()), timeout=1):
                index = next(number for number, other in waiting.items() if other is control)
                del waiting[index]
                try:
                    answer = self._controls[index].recv()
                except EOFError:
                    # its neighbour may have found a fault and ended first
                    ended.append(index)
                    deadline = min(deadline, time.monotonic() + 5)
                    continue
                if isinstance(answer, Failure):
                    raise AssertionError(answer.what)
                found[index] = answer
        assert not ended, f"the processes {ended} have ended"
        if waiting:
            places = [self._where(index) for index in waiting]
            raise AssertionError("no answer from\n" + "\n".join(places))
        return [found[index] for index in sorted(found)]

    def _where(self, index: int) -> str:
        """Return where in the kernel a process waits."""
        pid = self._processes[index].pid
        with contextlib.suppress(OSError):
            return f"process {index}, which waits in\n{Path(f'/proc/{pid}/stack').read_text()}"
        return f"process {index}"

    def end(self) -> None:
        """End them all."""
        for control, process in zip(self._controls, self._processes, strict=True):
            control.close()
            process.join(timeout=1)
            process.kill()


@contextlib.contextmanager
def forgetting(seconds: float) -> Iterator[None]:
    """Let the kernel forget dentries and inodes every `seconds`, where this is root."""
    done = threading.Event()

    def forget() -> None:
        while not done.wait(seconds):
            Path("/proc/sys/vm/drop_caches").write_text("2")

    if not seconds or os.geteuid() != 0:
        yield
        return
    thread = threading.Thread(target=forget, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def plant(plan: Plan, layers: Layers) -> None:
    """Make the lowers."""
    stress_shared.plant(layers.lowers, plan.processes)
    for index in range(plan.processes):
        rng = random.Random(f"{plan.seed} {index}")
        stress_own.plant(layers.lowers, f"own-{index}", rng)
        stress_held.plant(layers.lowers, index, plan.pool)


def stress(plan: Plan) -> list[str]:
    """Run the plan; return what each process did.

    Raises:
        AssertionError: Something went wrong.
    """
    with public_directory() as base:
        layers = Layers.create(base / "union", N_LOWERS)
        plant(plan, layers)
        processes: Processes | None = None
        try:
            with served(layers):
                try:
                    processes = Processes(plan, layers)
                    processes.answers()
                    with forgetting(plan.forget_every):
                        counts = processes.ask("work", plan.seconds, seconds=plan.seconds)
                    processes.ask("close")
                    processes.ask("check")
                except BaseException:
                    # what they have open would keep the mount
                    if processes:
                        processes.end()
                    raise
            with served(layers):
                processes.ask("check")
        finally:
            if processes:
                processes.end()
        left = [path.name for path in (layers.work / "work").glob("*") if path.name != "index"]
        assert not left, f"left over in the workdir: {left}"
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    if options.session:
        os.environ.update(Session(options.session, options.io).environment)
    os.environ["UNIONFUSE_TEST_PROGRAM"] = options.program
    seed = random.SystemRandom().randrange(1 << 30) if options.seed is None else options.seed
    plan = Plan(options.seconds, options.processes, seed, options.forget_every)
    print(f"seed {seed}", flush=True)
    try:
        counts = stress(plan)
    except AssertionError as error:
        print(f"failed: {error}")
        return 1
    for index, count in enumerate(counts):
        print(f"process {index}: {count}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=60, help="how long to work (60)")
    parser.add_argument("--processes", type=int, default=8, help="how many (8)")
    parser.add_argument("--session", help="as of unionfuse mount")
    parser.add_argument("--io", help="as of unionfuse mount")
    programs = ("unionfuse", "overlayfs", "fuse-overlayfs")
    program = os.environ.get("UNIONFUSE_TEST_PROGRAM", "unionfuse")
    parser.add_argument("--program", choices=programs, default=program, help="what serves")
    parser.add_argument("--seed", type=int, help="of the random numbers; times stay as they come")
    every = "seconds between two times that the kernel forgets; 0 is never (3)"
    parser.add_argument("--forget-every", type=float, default=3, help=every)
    options = parser.parse_args(arguments)
    if options.io and not options.session:
        parser.error("--io needs a --session")
    if options.processes < 2:
        parser.error("the processes hand things to each other: it takes two")
    return options


if __name__ == "__main__":
    sys.exit(main())
