"""Kill commands on a store of images at random points, and see that nothing is lost by it.

    python -m tests.image_crash --rounds 200 --seed 1

In each round a command runs in a process of its own and is killed after a random part of the time
that it takes. Then the store has to open and to verify, what has a name has to be whole, and the
same command has to succeed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.docker_registry import docker_registry
from tests.support.images import Layer, archive, layout_files, make_image
from unionfuse.cli.group import cli
from unionfuse.image.store.collect import collect
from unionfuse.image.store.store import Store
from unionfuse.image.store.verify import Verification
from unionfuse.image.watch import unwatched

BASE, TOP, NEW, FLAT, OTHER = (
    f"localhost/{name}:1" for name in ("base", "top", "new", "flat", "other")
)
PULLED = "top:1"  # at the registry
STEPS = {
    "pull": ("pull", PULLED),
    "load the base": ("load", "base.tar"),
    "load": ("load", "top.tar"),
    "commit": ("commit", "upper", NEW, "--base", BASE),
    "squash": ("squash", TOP, FLAT),
    "import": ("import", "upper", NEW),
    "tag": ("tag", BASE, OTHER),
    "rm": ("rm", TOP),
    "gc": ("gc",),
}
_NEEDS_TOP = ("squash", "rm", "gc")
_NEEDS_NOTHING = ("load the base", "pull")
_MORE_TIME = 1.2  # of what a command takes: some are to end before they are killed


@dataclass
class Rounds:
    """One store, and the commands that are killed on it.

    Attributes:
        registry: `HOST:PORT` of one that is empty.
        seconds: how long each step takes.
        killed: how often each was killed before its end.
    """

    base: Path
    random: random.Random
    registry: str
    seconds: dict[str, float] = field(default_factory=dict)
    killed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        noise = self.random.randbytes(300_000)
        below: Layer = {"./": None, "bin/": None}
        below |= {f"bin/{number}": noise[number * 1000 :] for number in range(20)}
        above: Layer = {"etc/": None, ".wh.bin": b""}
        above |= {f"etc/{number}": b"%d" % number for number in range(200)}
        for name, layers in ((BASE, [below]), (TOP, [below, above])):
            path = self.base / f"{name.removeprefix('localhost/').removesuffix(':1')}.tar"
            path.write_bytes(archive(layout_files((name, make_image(*layers)))))
        (self.base / "upper").mkdir()
        for number in range(100):
            (self.base / f"upper/new{number}").write_bytes(noise[: number * 100])
        self._finish(self._start("load", "top.tar"))
        self._finish(self._start("push", TOP, f"{self.registry}/{PULLED}"))

    def round(self, step: str) -> None:
        """Kill a step, look at the store, and run the step again.

        Raises:
            AssertionError: if something is lost or damaged, or the step fails.
        """
        self._make_ready(step)
        if step not in self.seconds:
            before = time.monotonic()
            self._finish(self._start(*self._words(step)))
            self.seconds[step] = time.monotonic() - before
            self._make_ready(step)
        names = self._names()
        pid = self._start(*self._words(step))
        time.sleep(self.random.uniform(0, self.seconds[step] * _MORE_TIME))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self.killed[step] += os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        now = self._names()
        assert names - {TOP} <= now, f"{step}: names were lost: {names - now}"
        self._check(now)
        if step != "rm" or TOP in now:
            self._finish(self._start(*self._words(step)))
        self._check(self._names())

    def _make_ready(self, step: str) -> None:
        """Bring the store to where a step has something to do."""
        with Store.open(self._root) as store:
            given = {name.reference for name in store.database.names()}
            for name in given - (set() if step in _NEEDS_NOTHING else {BASE}):
                store.remove(name)
        with Store.open(self._root) as store:
            collect(store)
        if step not in _NEEDS_NOTHING:
            self._finish(self._start(*STEPS["load the base"]))
        if step in _NEEDS_TOP:
            self._finish(self._start(*STEPS["load"]))
        if step == "gc":
            with Store.open(self._root) as store:
                store.remove(TOP)

    def _words(self, step: str) -> tuple[str, ...]:
        words = STEPS[step]
        return tuple(f"{self.registry}/{word}" if word == PULLED else word for word in words)

    @property
    def _root(self) -> Path:
        return self.base / "store"

    def _names(self) -> set[str]:
        with Store.open(self._root) as store:
            return {name.reference for name in store.database.names()}

    def _check(self, names: set[str]) -> None:
        with Store.open(self._root) as store:
            problems = list(Verification(store, unwatched).problems())
            assert not problems, problems
            for name in names:
                assert store.resolve(name).layers

    def _start(self, *words: str) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            os.chdir(self.base)
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            cli(["image", "--root", str(self._root), *words])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        finally:
            os._exit(status)

    def _finish(self, pid: int) -> None:
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "the command failed"


def main() -> None:
    """Run rounds, and say what was killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="unionfuse-crash.") as base,
        docker_registry(Path(base) / "registry") as registry,
    ):
        rounds = Rounds(Path(base), random.Random(seed), registry.host)
        for number in range(options.rounds):
            step = list(STEPS)[number % len(STEPS)]
            try:
                rounds.round(step)
            except BaseException:
                print(f"round {number}: {step}", flush=True)
                raise
    for step, count in rounds.killed.items():
        print(f"{step}: killed {count} times before its end")
    print(f"{options.rounds} rounds: nothing was lost or damaged")


if __name__ == "__main__":
    main()
