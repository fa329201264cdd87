"""The things that are done with an image in each round, and how their results are checked."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

from bench.errors import WrongResult
from tests.support import image_trees

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.images import Bench, Spent
    from tests.support.image_trees import Entry, Tree

OURS, PODMAN, UMOCI = "unionfuse", "podman", "skopeo, umoci"
PROGRAMS = (OURS, PODMAN, UMOCI)
PULL, SKOPEO = "pull and unpack", "of that, skopeo's part"
UNPACK, LOAD = "unpack from local blobs", "load an OCI archive"
COMMIT, PUSH, BOTH = "commit 200 MB in 2,000 files", "push that commit", "commit and push"
CASES = (PULL, SKOPEO, UNPACK, LOAD, COMMIT, PUSH, BOTH)

N_FILES, FILE_BYTES = 2_000, 100_000
# Real data, so that it is compressed as real data is.
CHANGE = f"""
import os
paths = sorted(os.path.join(at, name) for at, _, names in os.walk("/usr/lib") for name in names)
files = (path for path in paths if os.path.isfile(path) and not os.path.islink(path))
os.makedirs("/srv/new")
data = b""
for number in range({N_FILES}):
    while len(data) < {FILE_BYTES}:
        with open(next(files), "rb") as file:
            data += file.read()
    with open(f"/srv/new/{{number}}", "wb") as file:
        file.write(data[:{FILE_BYTES}])
    data = data[{FILE_BYTES}:]
"""
LOADED, CHANGED = "localhost/loaded:1", "localhost/changed:1"
# What engines make in a container for the sake of their mounts.
_OF_ENGINES = ("run", "dev", "proc", "sys", "etc", "tmp")
_Found = tuple[str, dict[str, "Spent"]]


def one_round(
    benches: tuple[Bench, Bench], order: list[str], progress: Callable[[str], None]
) -> Iterator[_Found]:
    """Do everything once; yield each case with what it took, by program.

    Args:
        benches: the first has stores for pulls, the second those for loads and commits. Nothing is
            removed, since ext4 is slow to make files where many were removed in the last minutes.
        order: the programs.
        progress: is told what is being done.

    Raises:
        BenchError: if a program fails.
        WrongResult: if it does something else.
    """
    first, second = benches
    works = ((_pull, first), (_unpack, first), (_load, second), (_commit_and_push, second))
    for work, bench in works:
        progress(work.__doc__ or "")
        yield from work(bench, order)


def _pull(bench: Bench, order: list[str]) -> Iterator[_Found]:
    """Pull from the registry."""
    spent: dict[str, Spent] = {}
    part: dict[str, Spent] = {}
    for program in order:
        if program == OURS:
            spent[program] = bench.ours("image", "pull", "-q", bench.name)
            bench.check(bench.our_id(bench.name), bench.id, "unionfuse image pull")
        elif program == PODMAN:
            spent[program] = bench.podman("pull", "-q", "--tls-verify=false", bench.name)
            bench.check(bench.podmans_id(bench.name), bench.id, "podman pull")
        else:
            part[program] = bench.spend(
                bench.engine.command(
                    "skopeo", "copy", "-q", "--src-tls-verify=false",
                    f"docker://{bench.name}", f"oci:{bench.layout}:x",
                )
            )  # fmt: skip
            spent[program] = part[program] + _umoci(bench, bench.base / "bundle")
    theirs = image_trees.recorded(bench.base / "bundle" / "rootfs")
    _agree("unionfuse image pull", _mounted(bench, _our_layers(bench)), theirs)
    _agree("podman pull", _mounted(bench, _podmans_layers(bench)), theirs)
    yield PULL, spent
    yield SKOPEO, part


def _umoci(bench: Bench, bundle: Path) -> Spent:
    image = f"{bench.layout}:x"
    return bench.spend(bench.engine.command("umoci", "unpack", "--image", image, bundle))


def _our_layers(bench: Bench) -> list[str]:
    """Return the directories of the layers of the image, the top first."""
    [known] = json.loads(bench.tool.out("image", "inspect", bench.name))
    return [str(layer["directory"]) for layer in reversed(known["layers"])]


def _podmans_layers(bench: Bench) -> list[str]:
    said = bench.engine.podman("image", "inspect", bench.name)
    data = json.loads(said)[0]["GraphDriver"]["Data"]
    return [data["UpperDir"], *data.get("LowerDir", "").split(":")]


def _mounted(bench: Bench, layers: list[str]) -> Tree:
    """Record what the kernel's overlayfs shows of layers."""
    mnt = bench.base / "mnt"
    mnt.mkdir()
    lowers = ":".join(layer for layer in layers if layer)
    try:
        subprocess.run(
            ["mount", "-t", "overlay", "-o", f"ro,lowerdir={lowers}", "none", mnt],
            check=True, timeout=60,
        )  # fmt: skip
        try:
            return image_trees.recorded(mnt)
        finally:
            subprocess.run(["umount", mnt], check=True, timeout=60)
    finally:
        mnt.rmdir()


def _agree(what: str, found: Tree, theirs: Tree) -> None:
    """Compare what a program has unpacked with what umoci has.

    Raises:
        WrongResult: if it shows something else.
    """
    reasons = [reason for each in image_trees.REASONS.values() for reason in each]
    lines = image_trees.compare(found, theirs, reasons).get("", [])
    if lines:
        raise WrongResult(f"{what} is not as umoci's: {len(lines)} differences, {lines[:5]}")


def _unpack(bench: Bench, order: list[str]) -> Iterator[_Found]:
    """Unpack anew what is here."""
    spent: dict[str, Spent] = {}
    ours = bench.base / "layers"
    for program in order:
        if program == OURS:
            spent[program] = bench.ours("image", "unpack", "-q", bench.name, ours)
        elif program == UMOCI:
            spent[program] = _umoci(bench, bench.base / "again")
    theirs = image_trees.recorded(bench.base / "again" / "rootfs")
    layers = sorted(ours.iterdir(), key=lambda path: int(path.name))
    _agree("unionfuse image unpack", _mounted(bench, list(map(str, layers))), theirs)
    yield UNPACK, spent


def _load(bench: Bench, order: list[str]) -> Iterator[_Found]:
    """Load an archive."""
    spent: dict[str, Spent] = {}
    for program in order:
        if program == OURS:
            loading = ("image", "load", "-q", "--name", LOADED, bench.archive)
            spent[program] = bench.ours(*loading)
            bench.check(bench.our_id(LOADED), bench.id, "unionfuse image load")
        elif program == PODMAN:
            spent[program] = bench.podman("load", "-q", "-i", bench.archive)
            bench.engine.podman("tag", bench.id, LOADED)
            bench.check(bench.podmans_id(LOADED), bench.id, "podman load")
    yield LOAD, spent


def _commit_and_push(bench: Bench, order: list[str]) -> Iterator[_Found]:
    """Commit a change, and push it."""
    commits: dict[str, Spent] = {}
    pushes: dict[str, Spent] = {}
    layers: list[dict[bytes, Entry]] = []
    since = int(time.time())
    for program in order:
        tag = f"{bench.host}/image:{'ours' if program == OURS else 'podmans'}"
        running = (LOADED, "python3", "-c", CHANGE)
        if program == OURS:
            bench.tool.run("run", "--name", "c", *running)
            commits[program] = bench.ours("commit", "-q", "c", CHANGED)
            pushes[program] = bench.ours("image", "push", "-q", CHANGED, tag)
        elif program == PODMAN:
            bench.engine.podman("run", "--name=c", "--network=none", *running)
            commits[program] = bench.podman("commit", "-q", "c", CHANGED)
            pushes[program] = bench.podman("push", "-q", "--tls-verify=false", CHANGED, tag)
        else:
            continue
        layers.append(_pushed(bench, tag, since))
    if layers[0] != layers[1] or len(layers[0]) < N_FILES:
        raise WrongResult(f"commits have {len(layers[0])} and {len(layers[1])} entries, or others")
    yield COMMIT, commits
    yield PUSH, pushes
    yield BOTH, {program: commits[program] + pushes[program] for program in commits}


def _pushed(bench: Bench, name: str, since: float) -> dict[bytes, Entry]:
    """Return the entries of the top layer that the registry has under a name."""
    layout = bench.base / name.rpartition(":")[2]
    bench.engine.run(
        "skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:x"
    )
    return image_trees.entries(image_trees.top_layer(layout), _OF_ENGINES, since=since)
