"""What images take: unionfuse, podman, and skopeo with umoci, on a real Debian, side by side.

All run as root, in a mount namespace of their own, on stores of their own. What is timed is one
command, or skopeo's and umoci's one after the other, from exec to exit. The programs take turns
within a round. Each result is checked: ids, digests, trees and the entries of layers.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, WrongResult
from bench.facts import machine_facts
from bench.image_cases import CASES, PROGRAMS, one_round
from tests.support import clients, containers, debian
from tests.support.docker_registry import docker_registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clients import Engine
    from tests.support.containers import Tool

SECONDS = 600.0


@dataclass(frozen=True)
class Spent:
    """What one command took.

    Attributes:
        cpu: seconds of all its processes.
        memory_mib: the most that one of them had at once.
    """

    seconds: float
    cpu: float
    memory_mib: float

    def __add__(self, other: Spent) -> Spent:
        """Return what two commands took, one after the other."""
        return Spent(
            self.seconds + other.seconds,
            self.cpu + other.cpu,
            max(self.memory_mib, other.memory_mib),
        )


@dataclass
class Case:
    """One thing that is done with an image.

    Attributes:
        spent: of each round, by program.
    """

    name: str
    spent: dict[str, list[Spent]] = field(default_factory=dict)

    def median(self, program: str) -> Spent | None:
        """Return the medians, and the peak of memory of all rounds; None if it has no such case."""
        found = self.spent.get(program)
        if not found:
            return None
        return Spent(
            statistics.median(each.seconds for each in found),
            statistics.median(each.cpu for each in found),
            max(each.memory_mib for each in found),
        )


@dataclass(frozen=True)
class Report:
    """What was measured, and where.

    Attributes:
        image: in words.
        loads: the load average of one minute before and after.
    """

    cases: list[Case]
    rounds: int
    image: str
    loads: tuple[float, float]
    facts: dict[str, str | int]
    versions: dict[str, str]


@dataclass(frozen=True)
class Bench:
    """What a round works with.

    Attributes:
        base: a directory for what comes and goes.
        host: of the registry.
        archive: an OCI archive of the image.
        id: of the image.
    """

    base: Path
    tool: Tool
    engine: Engine
    host: str
    archive: Path
    id: str

    @property
    def name(self) -> str:
        """The name of the image in the registry."""
        return f"{self.host}/image:1"

    @property
    def layout(self) -> Path:
        """The image as umoci reads it."""
        return self.base / "layout"

    def spend(self, command: list[str]) -> Spent:
        """Run a command, on a machine that has nothing to write to its disk."""
        os.sync()
        result = self.base / "spent"
        meter = [sys.executable, "-I", "-S", str(Path(__file__).with_name("spent.py")), str(result)]
        done = subprocess.run(
            [*meter, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise BenchError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}")
        seconds, cpu, kib = map(float, result.read_text().split())
        return Spent(seconds, cpu, kib / 1024)

    def ours(self, *words: str | Path) -> Spent:
        """Run `unionfuse`."""
        return self.spend(self.tool.command(*words))

    def podman(self, *words: str | Path) -> Spent:
        """Run podman."""
        return self.spend(self.engine.command("podman", *words))

    def check(self, found: str, wanted: str, what: str) -> None:
        """Compare what a program has made.

        Raises:
            WrongResult: if it is something else.
        """
        if found.removeprefix("sha256:") != wanted.removeprefix("sha256:"):
            raise WrongResult(f"{what}: {found} instead of {wanted}")

    def our_id(self, name: str) -> str:
        """Return the id of an image that we have."""
        return str(json.loads(self.tool.out("image", "inspect", name))[0]["id"])

    def podmans_id(self, name: str) -> str:
        """Return the id of an image that podman has."""
        return self.engine.podman("image", "inspect", "--format", "{{.Id}}", name).strip()


def measure(rounds: int, archive: Path | None, progress: Callable[[str], None]) -> Report:
    """Measure every case with every program, after one round to warm up.

    Args:
        rounds: how many.
        archive: an OCI archive of an image with python3; None to make a Debian.
        progress: is told what is being done.
    """
    before = os.getloadavg()[0]
    base = Path(tempfile.mkdtemp(prefix="ufi.", dir="/tmp"))  # sockets' paths have to be short
    base.chmod(0o755)
    try:
        with contextlib.ExitStack() as stack:
            house = stack.enter_context(clients.house(base))
            host = stack.enter_context(docker_registry(base / "registry")).host

            def stores(name: str, work: Path) -> Bench:
                """Make new stores, that stay to the end."""
                tool = containers.tool(house, f"t{name}", is_root=True)
                engine = clients.engine(house, f"p{name}", is_root=True, program=None)
                return Bench(
                    work, stack.enter_context(tool), stack.enter_context(engine), host, work, ""
                )

            maker = stores("m", base)
            if archive is None:
                progress("making a Debian")
                archive = _debian(base, maker.engine)
            maker = _prepared(replace(maker, archive=archive))
            image = _described(maker)
            progress(image)
            cases = {name: Case(name) for name in CASES}
            for number in range(rounds + 1):
                order = [*PROGRAMS[number % 3 :], *PROGRAMS[: number % 3]]
                work = base / f"round{number}"
                work.mkdir()
                first, second = (
                    replace(stores(f"{number}{which}", work), archive=archive, id=maker.id)
                    for which in "ab"
                )
                told = partial(_tell, progress, f"{number}/{rounds}")
                for name, spent in one_round((first, second), order, told):
                    if number:
                        for program, each in spent.items():
                            cases[name].spent.setdefault(program, []).append(each)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    loads = (before, os.getloadavg()[0])
    return Report(
        list(cases.values()), rounds, image, loads, machine_facts(Path("/tmp")), _versions()
    )


def _tell(progress: Callable[[str], None], where: str, what: str) -> None:
    progress(f"{where} {what}")


def _debian(base: Path, engine: Engine) -> Path:
    """Build a Debian of six layers, as anybody would; return an OCI archive of it."""
    tar, context, archive = base / "debian.tar", base / "context", base / "image.tar"
    debian.make_base(tar)
    debian.write_context(context)
    engine.podman("import", "-q", tar, debian.BASE, timeout=SECONDS)
    name = "localhost/made:1"
    bud = ("bud", "--layers", "--network=host", "-t", name, "-f", context / "Containerfile")
    engine.buildah(*bud, context, timeout=SECONDS)
    engine.buildah("push", "-q", name, f"oci-archive:{archive}:{name}", timeout=SECONDS)
    return archive


def _prepared(bench: Bench) -> Bench:
    """Bring the image into the registry."""
    source, target = f"oci-archive:{bench.archive}", f"docker://{bench.name}"
    skopeo = ("skopeo", "copy", "-q", "--dest-tls-verify=false", source, target)
    bench.engine.run(*skopeo, timeout=SECONDS)
    return replace(bench, id=_manifest(bench)["config"]["digest"])


def _manifest(bench: Bench) -> dict[str, Any]:
    raw = ("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{bench.name}")
    found: dict[str, Any] = json.loads(bench.engine.run(*raw).stdout)
    return found


def _described(bench: Bench) -> str:
    """Say what image it is."""
    layers = _manifest(bench)["layers"]
    compressed = sum(layer["size"] for layer in layers)
    bench.tool.run("image", "pull", "-q", bench.name, timeout=SECONDS)
    [row] = json.loads(bench.tool.out("image", "ls", "--json"))
    return (
        f"{len(layers)} layers, {row['size'] / 1e6:.0f} MB of files, "
        f"{compressed / 1e6:.0f} MB compressed by gzip"
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in ("podman", "skopeo", "umoci", "docker-registry"):
        done = subprocess.run(
            [name, "--version"], capture_output=True, text=True, check=True, timeout=30
        )
        words = [word for word in done.stdout.split() if word.lstrip("v")[:1].isdigit()]
        found[name] = words[0] if words else "unknown"
    return found
