"""The things that engines do in each round: what is timed, and what is made ready and put away."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import WrongResult
from tests.support import containerd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.support.clients import Engine
    from tests.support.containerd import Containerd

IMAGE = "localhost/bench:1"
N_DIRS, N_FILES = 100, 20  # in the second layer of the image
N_DELETED = 50  # by the third
# In each directory: one file copied up, one deleted, and a new directory with a new file.
CHANGE = "for d in /tree/d*; do echo x >> $d/f1; rm $d/f2; mkdir $d/new; cp $d/f3 $d/new/f3; done"
N_CHANGES = 4 * N_DIRS
BOX = "box"  # no beginning of an id, which podman would take it for
_CHANGED, _BUILT = "localhost/changed:1", "localhost/built:1"
_CONTAINERFILE = f"""
FROM {IMAGE}
RUN {CHANGE}
RUN rm -r /tree/d2 /tree/d3 && cp -r /tree/d4 /tree/copy
RUN chmod -R go-w /tree/d5 && mv /tree/d6/f1 /tree/moved
"""
_RUN = ("run", "--rm", "--network=none")


def make_image(base: Path) -> Path:
    """Make an image of three layers: `busybox.tar`, many small files, and whiteouts; return it."""
    files = [(f"tree/d{number}", None) for number in range(N_DIRS)]
    entries: list[tuple[str, str | None]] = [("tree", None), *files]
    for directory, _ in files:
        entries += [(f"{directory}/f{number}", "x" * 2000) for number in range(N_FILES)]
    whiteouts: list[tuple[str, str | None]] = [
        (f"tree/d{number}/.wh.f9", "") for number in range(N_DELETED)
    ]
    layers = [
        base / "busybox.tar",
        containerd.layer(base / "tree.tar", *entries),
        containerd.layer(base / "changes.tar", *whiteouts),
    ]
    archive = containerd.image(base, IMAGE, layers)
    archive.chmod(0o644)
    return archive


def prepare(engine: Engine, archive: Path) -> None:
    """Load the image into the store of an engine, and make what the cases take."""
    loaded = engine.podman("load", "--quiet", "--input", archive)
    if IMAGE not in loaded:
        engine.podman("tag", loaded.split()[-1], IMAGE)
    context = _tmp(engine) / "context"
    engine.run("mkdir", context, _tmp(engine) / "volume")
    engine.run("sh", "-c", f"cat > {context}/Containerfile <<'E'{_CONTAINERFILE}E")


def _tmp(engine: Engine) -> Path:
    return engine.base / "tmp"


def _run(
    engine: Engine, *options: str, command: tuple[str, ...] = ("true",)
) -> AbstractContextManager[Callable[[], object]]:
    return contextlib.nullcontext(lambda: engine.podman(*_RUN, *options, IMAGE, *command))


def _change(engine: Engine) -> AbstractContextManager[Callable[[], object]]:
    return _run(engine, command=("sh", "-c", CHANGE))


def _over_a_volume(engine: Engine) -> AbstractContextManager[Callable[[], object]]:
    return _run(engine, f"--volume={_tmp(engine)}/volume:/v:O", command=("touch", "/v/file"))


@contextlib.contextmanager
def _exec(engine: Engine) -> Iterator[Callable[[], object]]:
    engine.podman("run", "--detach", "--network=none", f"--name={BOX}", IMAGE, "sleep", "1000")
    yield lambda: engine.podman("exec", BOX, "true")
    engine.podman("rm", "--force", "--time=0", BOX)


@contextlib.contextmanager
def _changed(engine: Engine) -> Iterator[None]:
    """Have a container `BOX` that has made its changes and ended."""
    engine.podman("run", "--network=none", f"--name={BOX}", IMAGE, "sh", "-c", CHANGE)
    yield
    engine.podman("rm", "--force", BOX)


@contextlib.contextmanager
def _commit(engine: Engine) -> Iterator[Callable[[], object]]:
    with _changed(engine):
        yield lambda: engine.podman("commit", "--quiet", BOX, _CHANGED)
    engine.podman("rmi", "--force", _CHANGED)


@contextlib.contextmanager
def _diff(engine: Engine) -> Iterator[Callable[[], object]]:
    def diff() -> None:
        lines = engine.podman("diff", BOX).splitlines()
        # and each directory that has them is one more
        if sum(line[2:].startswith("/tree/d") for line in lines) != N_CHANGES + N_DIRS:
            raise WrongResult(f"podman diff of {engine.base.name} says {lines}")

    with _changed(engine):
        yield diff


@contextlib.contextmanager
def _export(engine: Engine) -> Iterator[Callable[[], object]]:
    with _changed(engine):
        yield lambda: engine.podman("export", "--output=/dev/null", BOX)


@contextlib.contextmanager
def _copy_out(engine: Engine) -> Iterator[Callable[[], object]]:
    copy = _tmp(engine) / "copy"
    with _changed(engine):
        yield lambda: engine.podman("cp", f"{BOX}:/tree", copy)
    engine.run("rm", "-r", copy)


@contextlib.contextmanager
def _copy_in(engine: Engine) -> Iterator[Callable[[], object]]:
    tree = _tmp(engine) / "tree"
    script = f"for d in $(seq {N_DIRS}); do mkdir -p {tree}/$d; for f in $(seq {N_FILES}); do "
    engine.run("sh", "-ec", script + f"echo $f > {tree}/$d/$f; done; done")
    with _changed(engine):
        yield lambda: engine.podman("cp", tree, f"{BOX}:/new")
    engine.run("rm", "-r", tree)


def _image_mount(engine: Engine) -> AbstractContextManager[Callable[[], object]]:
    script = f"""
        find "$(podman image mount {IMAGE})/tree" -type f -exec cat {{}} + | wc -c
        podman image unmount {IMAGE}
    """
    as_owner = () if engine.is_root else ("podman", "unshare")
    n_bytes = (N_DIRS * N_FILES - N_DELETED) * 2000

    def mount() -> None:
        said = engine.run(*as_owner, "sh", "-ec", script).stdout.split()
        if said[0] != str(n_bytes):
            raise WrongResult(f"the image mounted in {engine.base.name} has {said[0]} bytes")

    return contextlib.nullcontext(mount)


@contextlib.contextmanager
def _build(engine: Engine) -> Iterator[Callable[[], object]]:
    context = _tmp(engine) / "context"
    options = ("--quiet", "--layers", "--no-cache", "--network=host")
    yield lambda: engine.podman("build", *options, "-t", _BUILT, context)
    engine.podman("rmi", "--force", _BUILT)


@contextlib.contextmanager
def _buildah(engine: Engine) -> Iterator[Callable[[], object]]:
    script = f"""
        c=$(buildah from --pull-never {IMAGE})
        buildah run $c -- sh -c '{CHANGE}'
        echo new > "$(buildah mount $c)/tree/new"
        buildah umount $c
        buildah commit --quiet --rm $c {_BUILT}
    """
    as_owner = () if engine.is_root else ("buildah", "unshare")
    yield lambda: engine.run(*as_owner, "sh", "-ec", script)
    engine.podman("rmi", "--force", _BUILT)


def _keep_id(engine: Engine) -> AbstractContextManager[Callable[[], object]]:
    return _run(engine, "--userns=keep-id")


_EVERYBODY = {
    "podman run, true": _run,
    "podman run, 400 changes": _change,
    "podman run -v DIR:/v:O": _over_a_volume,
    "podman exec, true": _exec,
    "podman diff, 400 changes": _diff,
    "podman commit, 400 changes": _commit,
    "podman export, 2,300 files": _export,
    "podman cp, 2,000 files out": _copy_out,
    "podman cp, 2,000 files in": _copy_in,
    "podman image mount, read 2,000 files": _image_mount,
    "podman build, 3 steps": _build,
    "buildah from, run, mount, commit": _buildah,
}
ROOT = {f"{name} (root)": case for name, case in _EVERYBODY.items()}
ROOTLESS = {f"{name} (rootless)": case for name, case in _EVERYBODY.items()}
# Root's `--uidmap` does not run on fuse-overlayfs, which maps ids twice.
ROOTLESS["podman run --userns=keep-id (rootless)"] = _keep_id


@dataclass(frozen=True)
class Snapshotter:
    """containerd with one of its snapshotters, and the archive of the image."""

    ctd: Containerd
    name: str
    archive: Path

    def ctr(self, *words: str | Path) -> str:
        """Run ctr; the word `@` stands for this snapshotter."""
        chosen = ("--snapshotter", self.name)
        return self.ctd.ctr(
            *(part for word in words for part in (chosen if word == "@" else (word,)))
        )


@contextlib.contextmanager
def _unpack(snapshotter: Snapshotter) -> Iterator[Callable[[], object]]:
    # with its snapshots, of either snapshotter
    snapshotter.ctr("images", "rm", "--sync", IMAGE)
    yield lambda: snapshotter.ctr("images", "import", "@", snapshotter.archive)


@contextlib.contextmanager
def _ctr_run(snapshotter: Snapshotter, *command: str) -> Iterator[Callable[[], object]]:
    snapshotter.ctr("images", "import", "@", snapshotter.archive)
    name = f"c{time.monotonic_ns()}"
    yield lambda: snapshotter.ctr("run", "--rm", "@", IMAGE, name, *(command or ("true",)))


@contextlib.contextmanager
def _ctr_change(snapshotter: Snapshotter) -> Iterator[Callable[[], object]]:
    with _ctr_run(snapshotter, "sh", "-c", CHANGE) as act:
        yield act


@contextlib.contextmanager
def _ctr_diff(snapshotter: Snapshotter) -> Iterator[Callable[[], object]]:
    snapshotter.ctr("images", "import", "@", snapshotter.archive)
    snapshotter.ctr("run", "@", IMAGE, "diffed", "sh", "-c", CHANGE)
    yield lambda: snapshotter.ctr("snapshots", "@", "diff", "--keep", "diffed")
    snapshotter.ctr("containers", "rm", "diffed")


CONTAINERD = {
    "ctr images import, 3 layers": _unpack,
    "ctr run, true": _ctr_run,
    "ctr run, 400 changes": _ctr_change,
    "ctr snapshots diff, 400 changes": _ctr_diff,
}
