"""Images go between unionfuse, podman and skopeo, and stay what they are; as root and rootless."""

from __future__ import annotations

import json
import sys
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support import clients
from tests.support.image_trees import REASONS, compare, entries, top_layer
from tests.support.mounts import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.clients import Engine, House

pytestmark = [
    pytest.mark.clients,
    pytest.mark.fuse,
    pytest.mark.root,
    pytest.mark.once,
    pytest.mark.timeout(300),
]

BASE = "localhost/base:1"
CHANGES = """
set -e
echo new > /new; mkdir -p /dir/sub; echo x > /dir/sub/file; ln -s new /link; ln /new /hard
rm /etc/group; echo user2:x:5:5::/:/bin/sh >> /etc/passwd; chmod 600 /etc/passwd
chown 5:6 /root; mv /usr /moved; chmod 4755 /new; mkfifo /fifo; rm /bin/vi; chmod 700 /var/log
"""
# What podman makes for the sake of its mounts, and what a mount has for its own.
OF_PODMAN = (
    "run",
    "dev",
    "proc",
    "sys",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/mtab",
)


@dataclass(frozen=True)
class Ours:
    """`unionfuse image` of one user, beside that user's podman."""

    engine: Engine

    @property
    def base(self) -> Path:
        return self.engine.base

    def image(self, *arguments: str | Path) -> str:
        return self.engine.run(*self.command("image", *arguments)).stdout

    def command(self, *arguments: str | Path) -> list[str | Path]:
        return ["env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-m", "unionfuse", *arguments]

    def id(self, name: str) -> str:
        return str(json.loads(self.image("inspect", name))[0]["id"])


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with clients.temporary_house() as made:
        yield made


@pytest.fixture(scope="module", params=["root", "rootless"])
def ours(request: pytest.FixtureRequest, house: House) -> Iterator[Ours]:
    is_root = request.param == "root"
    with clients.engine(house, request.param, is_root=is_root, program=None) as engine:
        tar = house.base / "busybox.tar"
        made = Ours(engine)
        environment = f"UNIONFUSE_ROOT={engine.base}/store"
        command = made.command("image", "import", tar, BASE, "--cmd", "sh")
        engine.run("env", environment, *command)
        yield Stored(engine)


@dataclass(frozen=True)
class Stored(Ours):
    """With its store beside that of podman."""

    def command(self, *arguments: str | Path) -> list[str | Path]:
        command = super().command(*arguments)
        return [command[0], f"UNIONFUSE_ROOT={self.base}/store", *command[1:]]


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_podman_loads_what_we_save(ours: Ours, kind: str) -> None:
    file = ours.base / f"ours-{kind}.tar"
    ours.image("save", BASE, "--format", kind, "-o", file)
    ours.engine.podman("load", "--quiet", "--input", file)
    shown = ours.engine.podman("image", "inspect", "--format", "{{.Id}} {{.Config.Cmd}}", BASE)
    assert shown.split() == [ours.id(BASE).removeprefix("sha256:"), "[sh]"]
    ours.engine.podman("rmi", BASE)


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive", "oci-dir"])
def test_we_load_what_podman_saves(ours: Ours, house: House, kind: str) -> None:
    name = "localhost/theirs:1"
    ours.engine.podman("import", "--quiet", house.base / "busybox.tar", name)
    file = ours.base / f"theirs-{kind}"
    ours.engine.podman("save", "--quiet", "--format", kind, "--output", file, name)
    command = ("load", "--name", name, file) if kind == "oci-dir" else ("load", file)
    assert ours.image(*command) == f"loaded {name}\n"
    shown = ours.engine.podman("image", "inspect", "--format", "{{.Id}}", name)
    assert ours.id(name) == f"sha256:{shown.strip()}"
    ours.image("rm", name)


def test_what_skopeo_compresses_by_zstd_is_loaded(ours: Ours) -> None:
    ours.image("save", BASE, "-o", ours.base / "for-skopeo.tar")
    layout = ours.base / "zstd"
    ours.engine.run(
        "skopeo", "copy", "--quiet", "--dest-compress-format=zstd", "--dest-force-compress-format",
        f"oci-archive:{ours.base}/for-skopeo.tar", f"oci:{layout}:localhost/zstd:1", check=False,
    )  # fmt: skip
    if not layout.exists():  # an older skopeo has no --dest-force-compress-format
        ours.engine.run(
            "skopeo", "copy", "--quiet", "--dest-compress-format=zstd",
            f"docker-archive:{docker_archive(ours)}", f"oci:{layout}:localhost/zstd:1",
        )  # fmt: skip
    assert top_layer(layout).read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    assert ours.image("load", layout) == "loaded localhost/zstd:1\n"
    assert ours.image("diff", BASE, "localhost/zstd:1") == ""


def docker_archive(ours: Ours) -> Path:
    file = ours.base / "plain.tar"
    ours.image("save", BASE, "--format", "docker-archive", "-o", file)
    return file


def test_skopeo_reads_the_store_itself(ours: Ours) -> None:
    shown = ours.engine.run("skopeo", "inspect", f"oci:{ours.base}/store:{BASE}").stdout
    assert json.loads(shown)["Os"] == "linux"


def test_a_commit_has_the_entries_of_podmans(ours: Ours) -> None:
    ours.image("save", BASE, "-o", ours.base / "base.tar")
    ours.engine.podman("load", "--quiet", "--input", ours.base / "base.tar")
    ours.engine.podman("run", "--name=c", "--network=none", BASE, "sh", "-c", CHANGES)
    ours.engine.podman("commit", "--quiet", "c", "localhost/theirs:2")
    theirs = ours.base / "theirs-commit"
    ours.engine.podman(
        "save", "--quiet", "--format=oci-dir", "--output", theirs, "localhost/theirs:2"
    )
    unionfuse = " ".join(map(str, ours.command()))
    script = f"""
        mkdir -p upper mnt; printf '%s' "$1" > changes
        {unionfuse} image mount {BASE} --upper upper mnt
        chroot mnt sh -c "$1"
        {unionfuse} image commit upper localhost/ours:2
        {unionfuse} umount mnt
        {unionfuse} image commit upper localhost/ours:3
    """
    command: list[str | Path] = ["sh", "-euc", script, "sh", CHANGES]
    if not ours.engine.is_root:
        command = [*ours.command("image", "unshare"), *command]
    ours.engine.run(*command)
    layout = ours.base / "ours-commit"
    ours.image("save", "localhost/ours:2", "--format", "oci-dir", "-o", layout)
    ours_found, theirs_found = (entries(top_layer(made), OF_PODMAN) for made in (layout, theirs))
    reasons = [] if ours.engine.is_root else REASONS["rootless commit"]
    assert "" not in compare(ours_found, theirs_found, reasons)
    assert ours.image("diff", "localhost/ours:2", "localhost/ours:3") == ""
    ours.engine.podman("rm", "--force", "--time=0", "c")


@pytest.mark.parametrize("ours", ["rootless"], indirect=True)
def test_what_is_left_mounted_in_unshare_goes_with_its_command(ours: Ours) -> None:
    unionfuse = " ".join(map(str, ours.command()))
    script = f"""
        mkdir -p left left.mnt
        {unionfuse} image mount {BASE} --upper left left.mnt
        echo new > left.mnt/new; exit 7
    """
    done = ours.engine.run(*ours.command("image", "unshare", "sh", "-euc", script), check=False)
    assert done.returncode == 7, done.stdout
    ours.image("commit", "left", "localhost/left:1")
    assert ours.image("diff", "localhost/left:1").split() == ["A", "/new"]


def test_owners_are_kept(ours: Ours) -> None:
    made = ours.base / "owners"
    script = (
        f"mkdir {made} && echo x > {made}/file && chown 7:8 {made}/file && chmod 640 {made}/file"
    )
    if not ours.engine.is_root:
        ours.engine.run(*ours.command("image", "unshare", "sh", "-c", script))
        run = (*ours.command("image", "unshare"), *ours.command("image", "import", made, "own:1"))
    else:
        ours.engine.run("sh", "-c", script)
        run = tuple(ours.command("image", "import", made, "own:1"))
    ours.engine.run(*run)
    file = ours.base / "owners.tar"
    ours.image("export", "own:1", "-o", file)
    with tarfile.open(file) as tar:
        member = tar.getmember("file")
    assert (member.uid, member.gid, member.mode) == (7, 8, 0o640)
    ours.image("verify")
