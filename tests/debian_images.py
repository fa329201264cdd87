"""Real Debian images between unionfuse, podman, skopeo and umoci: python -m tests.debian_images

Two images of some 600 MB and six layers, one built by buildah and one by unionfuse, go through
a registry and archives in both directions: every digest and id has to stay, the images have to
run under either, and what they show has to be the same, entry by entry, but for what is listed in
`REASONS`. As root, with `--user` as a plain user; takes some minutes and needs a Debian mirror.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import clients, containers, debian, image_trees
from tests.support.docker_registry import docker_registry
from tests.support.image_trees import REASONS
from tests.support.mounts import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.support.clients import Engine
    from tests.support.containers import Tool
    from tests.support.image_trees import Reason, Tree

BUILDAHS, OURS = "localhost/buildahs:1", "localhost/ours:1"
SECONDS = debian.SECONDS
# How skopeo brings the image to the registry, and the compression that its layers have then.
FORMS = {
    "oci": (["--format=oci"], b"\x1f\x8b"),
    "v2s2": (["--format=v2s2"], b"\x1f\x8b"),
    "zstd": (["--format=oci", "--dest-compress-format=zstd"], b"\x28\xb5\x2f\xfd"),
}
# What is run in an image, and what it has to print.
PROGRAMS = {
    "print(sum(range(10)))": "45",
    "import os; print(os.getxattr('/usr/bin/ping', 'security.capability').hex())":
        "0100000200200000000000000000000000000000",
    "import os; print(open('/usr/share/zoneinfo').read().split(), os.path.exists('/usr/bin/git'))":
        "['a', 'file', 'now'] False",
}  # fmt: skip
COMPILE = """
printf '#include <stdio.h>\\nint main(void) { puts("compiled"); return 0; }\\n' > /tmp/hello.c
gcc -O2 -o /tmp/hello /tmp/hello.c && /tmp/hello
"""
# A change of some hundred files, for a commit; nothing in it tells the time.
CHANGE = """
set -e
python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.11
mv /usr/share/perl /usr/share/moved; rm -r /usr/share/doc /usr/share/common-licenses
mkdir /usr/share/doc; echo new > /usr/share/doc/file; cp -a /usr/bin/ping /usr/bin/pong
chmod -R go-r /etc/apt; chown -R 5:6 /var/cache/apt; ln -s ping /usr/bin/peng
ln /usr/bin/perl /usr/bin/pearl; echo '# more' >> /etc/bash.bashrc; rm /srv/hole; mkfifo /srv/hole
"""
# What engines make in a container for the sake of their mounts.
OF_ENGINES = (
    "run", "dev", "proc", "sys", "tmp", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab",
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """The programs of one user.

    Attributes:
        tool: unionfuse.
        maker: buildah and podman, with what they have built.
        taker: podman with a store that has nothing else.
        hosts: a registry for each of `FORMS`. Not one, since skopeo takes a layer that a registry
            has for the one that it would push, however that is compressed.
    """

    tool: Tool
    maker: Engine
    taker: Engine
    hosts: dict[str, str]

    def ours(self, *arguments: str | Path) -> str:
        """Run `unionfuse`, which may take long."""
        return self.tool.run(*arguments, timeout=SECONDS).stdout

    def skopeo(self, *arguments: str | Path) -> str:
        return self.maker.run("skopeo", *arguments, timeout=SECONDS).stdout

    def id(self, name: str) -> str:
        """Return the id of an image of ours."""
        return str(json.loads(self.ours("image", "inspect", name))[0]["id"])

    def hand_over(self, file: Path) -> Path:
        """Let every program read a file or a directory."""
        debian.run(["chmod", "-R", "a+rX", str(file)])
        return file


def build(stage: Stage, base: Path, context: Path) -> None:
    """Build the image by buildah and by unionfuse."""
    importing = ("import", "-q", base, debian.BASE)
    stage.maker.podman(*importing, timeout=SECONDS)
    stage.ours("image", "import", base, debian.BASE)
    file = context / "Containerfile"
    bud = ("bud", "--layers", "--network=host", "-t", BUILDAHS, "-f", file, context)
    timed("buildah bud", lambda: stage.maker.buildah(*bud, timeout=SECONDS))
    timed("unionfuse build", lambda: stage.ours("build", "-t", OURS, "-f", file, context))
    [shown] = json.loads(stage.maker.podman("image", "inspect", BUILDAHS))
    layers = shown["RootFS"]["Layers"]
    assert len(layers) >= 4, layers
    print(f"  {len(layers)} layers, {shown['Size'] / 1e6:.0f} MB", flush=True)


def round_trip(stage: Stage, form: str) -> None:
    """Let skopeo push, unionfuse pull and push that, and podman pull that."""
    options, magic = FORMS[form]
    theirs, back = f"{stage.hosts[form]}/theirs:1", f"{stage.hosts[form]}/back:2"
    stage.skopeo(
        "copy", "-q", "--dest-tls-verify=false", *options,
        f"containers-storage:{BUILDAHS}", f"docker://{theirs}",
    )  # fmt: skip
    timed(f"{form}: unionfuse pulls", lambda: stage.ours("image", "pull", "-q", theirs))
    pushed = stage.ours("image", "push", "-q", theirs, back).split("@")[1].strip()
    raw = manifest(stage, theirs)
    assert manifest(stage, back) == raw, "the manifest is the same, byte by byte"
    assert hashlib.sha256(raw).hexdigest() == pushed.removeprefix("sha256:")
    blobs = copied(stage, theirs)
    assert copied(stage, back) == blobs, "and so are the blobs"
    layers = [layer["digest"].removeprefix("sha256:") for layer in json.loads(raw)["layers"]]
    heads = [blobs[layer].head for layer in layers]
    assert all(head.startswith(magic) for head in heads), heads
    assert taken(stage, back) == stage.id(theirs)
    assert "freed" in stage.ours("image", "rm", theirs), "the next one is pulled whole"
    print(f"  {form}: {len(layers)} layers go round, the digest is {pushed[:19]}", flush=True)


def own_image(stage: Stage) -> None:
    """Push our own image, and let skopeo and podman have it."""
    name = f"{stage.hosts['oci']}/ours:1"
    pushed = stage.ours("image", "push", "-q", OURS, name).split("@")[1].strip()
    assert hashlib.sha256(manifest(stage, name)).hexdigest() == pushed.removeprefix("sha256:")
    store = stage.tool.root / "blobs" / "sha256"
    for file, blob in copied(stage, name).items():
        if file not in ("manifest.json", "version"):  # the others are named by their digests
            assert blob == file_of(store / file), file
            assert blob.digest == file
    assert taken(stage, name) == stage.id(OURS)
    print(f"  what unionfuse has built is pushed, and runs under podman: {pushed[:19]}", flush=True)


@dataclass(frozen=True)
class File:
    """What a file has in it: its sha256, and its first bytes."""

    digest: str
    head: bytes


def file_of(path: Path) -> File:
    with path.open("rb") as file:
        return File(hashlib.file_digest(file, "sha256").hexdigest(), _head(path))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def manifest(stage: Stage, name: str) -> bytes:
    """Return the manifest as the registry has it."""
    return stage.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}").encode()


def copied(stage: Stage, name: str) -> dict[str, File]:
    """Return the files in which skopeo copies an image of a registry, by name."""
    directory = stage.maker.base / "tmp" / "copied"
    stage.skopeo(
        "copy", "-q", "--src-tls-verify=false", "--preserve-digests",
        f"docker://{name}", f"dir:{directory}",
    )  # fmt: skip
    found = {path.name: file_of(path) for path in directory.iterdir()}
    shutil.rmtree(directory)
    assert len(found) >= 4, found
    return found


def taken(stage: Stage, name: str) -> str:
    """Let podman pull an image and run it; return the id that it has there."""
    stage.taker.podman("pull", "-q", "--tls-verify=false", name, timeout=SECONDS)
    return ran(stage, name)


def ran(stage: Stage, name: str) -> str:
    """Run an image that podman has; return its id, and remove it."""
    run = ("run", "--rm", "--network=none", name)
    for program, expected in PROGRAMS.items():
        assert stage.taker.podman(*run, "python3", "-c", program) == expected + "\n", program
    assert stage.taker.podman(*run, "sh", "-c", COMPILE) == "compiled\n"
    found = stage.taker.podman("image", "inspect", "--format", "{{.Id}}", name).strip()
    stage.taker.podman("rmi", name)
    return f"sha256:{found}"


def archives(stage: Stage) -> None:
    """Load what podman saves, and the other way round."""
    for form in ("oci-archive", "docker-archive"):
        theirs, ours = stage.maker.base / "tmp" / form, stage.tool.base / form
        saving = ("save", "-q", "--format", form, "-o", theirs, BUILDAHS)
        stage.maker.podman(*saving, timeout=SECONDS)
        stage.ours("image", "load", stage.hand_over(theirs))
        known = stage.maker.podman("image", "inspect", "--format", "{{.Id}}", BUILDAHS)
        assert stage.id(BUILDAHS) == f"sha256:{known.strip()}"
        run_ours(stage, BUILDAHS)
        stage.ours("image", "save", OURS, "--format", form, "-o", ours)
        stage.taker.podman("load", "-q", "-i", stage.hand_over(ours), timeout=SECONDS)
        assert ran(stage, OURS) == stage.id(OURS)
        theirs.unlink()
        ours.unlink()
        print(f"  {form}: of podman is loaded by us, and of us by podman", flush=True)


def run_ours(stage: Stage, name: str) -> None:
    """Run an image under unionfuse."""
    for program, expected in PROGRAMS.items():
        assert stage.tool.out("run", "--rm", name, "python3", "-c", program) == expected
    assert stage.tool.out("run", "--rm", name, "sh", "-c", COMPILE) == "compiled"


def trees(stage: Stage, name: str) -> None:
    """Compare what an image of the registry shows under unionfuse, umoci and podman."""
    stage.ours("image", "pull", "-q", name)
    mounted = _recorded_by_us(stage, name)
    for way, tree in _others_of_ours(stage, name).items():
        agree(f"{way} as mounted", mounted, tree, REASONS["unpacked"])
    agree("podman", mounted, _recorded_by_podman(stage, name), _reasons(stage, "podman"))
    agree("umoci", mounted, _recorded_by_umoci(stage, name), _reasons(stage, "umoci"))


def agree(
    what: str,
    ours: Mapping[bytes, object],
    theirs: Mapping[bytes, object],
    reasons: list[Reason],
) -> None:
    """Look whether two trees or layers are the same but for what has a reason."""
    found = image_trees.compare(ours, theirs, reasons)
    unexplained = found.pop("", [])
    for why, lines in found.items():
        print(f"    {'; '.join(lines[:3])}: {why}", flush=True)
    for line in unexplained[:20]:
        print(f"    differs: {line:.300}", flush=True)
    assert not unexplained, f"{what}: {len(unexplained)} differences in {len(ours)} names"
    print(f"  {what}: the same {len(ours)} names", flush=True)


def _reasons(stage: Stage, what: str) -> list[Reason]:
    return REASONS[what] + ([] if stage.tool.is_root else REASONS[f"rootless {what}"])


def _record(root: str, file: Path) -> str:
    program = shlex.join([sys.executable, "-m", "tests.support.image_trees", root, str(file)])
    return f"PYTHONPATH={REPOSITORY} {program}"


def _recorded_by_us(stage: Stage, name: str) -> Tree:
    file = stage.tool.base / "tree"
    _as_owner(stage, f"""
        mkdir -p mnt; $unionfuse image mount {name} mnt
        {_record("mnt", file)}
        $unionfuse umount mnt
    """)  # fmt: skip
    return image_trees.read(file)


def _others_of_ours(stage: Stage, name: str) -> dict[str, Tree]:
    """Return what else we show an image as."""
    bundle, export = stage.tool.base / "bundle-tree", stage.tool.base / "export-tree"
    _as_owner(stage, f"""
        $unionfuse image unpack -q --bundle {name} bundle
        {_record("bundle/rootfs", bundle)}
        $unionfuse image export -q {name} -o export.tar
        mkdir export; tar -C export -xpf export.tar --numeric-owner --xattrs --xattrs-include='*'
        {_record("export", export)}
        rm -r bundle export export.tar
    """)  # fmt: skip
    return {"a bundle": image_trees.read(bundle), "an export": image_trees.read(export)}


def _as_owner(stage: Stage, script: str) -> None:
    """Run a script as root, or as root of the user's namespace."""
    words = shlex.join([sys.executable, "-m", "unionfuse"])
    shell = ("sh", "-euc", script.replace("$unionfuse", words))
    is_root, tool = stage.tool.is_root, stage.tool
    debian.run(tool.program(*shell) if is_root else tool.command("image", "unshare", *shell))


def _recorded_by_podman(stage: Stage, name: str) -> Tree:
    file = stage.taker.base / "tmp" / "tree"
    stage.taker.podman("pull", "-q", "--tls-verify=false", name, timeout=SECONDS)
    script = f"""
        mnt=$(podman image mount {name})
        {_record("MNT", file).replace("MNT", '"$mnt"')}
        podman image unmount {name}
    """
    shell = ("sh", "-euc", script)
    unshare = () if stage.taker.is_root else ("podman", "unshare")
    stage.taker.run(*unshare, *shell, timeout=SECONDS)
    stage.taker.podman("rmi", name)
    return image_trees.read(file)


def _recorded_by_umoci(stage: Stage, name: str) -> Tree:
    layout, bundle = (stage.maker.base / "tmp" / kind for kind in ("layout", "bundle"))
    stage.skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:x")
    rootless = () if stage.maker.is_root else ("--rootless",)
    unpack = ("umoci", "unpack", *rootless, "--image", f"{layout}:x", bundle)
    stage.maker.run(*unpack, timeout=SECONDS)
    found = image_trees.recorded(bundle / "rootfs")
    for directory in (layout, bundle):
        shutil.rmtree(directory)
    if not rootless:
        return found
    return {path: image_trees.owned(record) for path, record in found.items()}


def commits(stage: Stage) -> None:
    """Make the same change in a container of each, and compare the layers that come of it."""
    since = int(time.time())  # as layers have it
    change = ("--name=c", "--network=none", BUILDAHS, "sh", "-c", CHANGE)
    stage.maker.podman("run", *change)
    stage.maker.podman("commit", "-q", "c", "localhost/changed:1", timeout=SECONDS)
    stage.ours("run", *change)
    timed("unionfuse commit", lambda: stage.ours("commit", "-q", "c", "localhost/changed:1"))
    theirs, ours = stage.maker.base / "tmp" / "changed", stage.tool.base / "changed"
    saving = ("--format", "oci-dir", "-q", "-o")
    stage.maker.podman("save", *saving, theirs, "localhost/changed:1", timeout=SECONDS)
    stage.ours("image", "save", *saving, ours, "localhost/changed:1")
    found = [
        image_trees.entries(image_trees.top_layer(layout), OF_ENGINES, since=since)
        for layout in (ours, theirs)
    ]
    agree("podman commit", *found, _reasons(stage, "commit"))


def timed(what: str, work: Callable[[], object]) -> None:
    """Do something, and print how long it took."""
    begun = time.monotonic()
    work()
    print(f"  {what}: {time.monotonic() - begun:.1f} s", flush=True)


def check(stage: Stage, base: Path, context: Path) -> None:
    """Do all of it."""
    build(stage, base, context)
    for form in FORMS:
        round_trip(stage, form)
    own_image(stage)
    archives(stage)
    for name in ("theirs:1", "ours:1"):
        print(f"{name}:", flush=True)
        trees(stage, f"{stage.hosts['oci']}/{name}")
    commits(stage)
    print(f"  unionfuse image verify: {stage.ours('image', 'verify', '-q').strip()}")


def main() -> None:
    """Check everything as one user."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--user", action="store_true", help="as a plain user")
    parser.add_argument("--base", type=Path, help="a tar of a Debian 12 instead of a new one")
    arguments = parser.parse_args()
    is_root = not arguments.user
    with contextlib.ExitStack() as stack:
        house = stack.enter_context(clients.temporary_house())
        base = house.base / "debian.tar"
        if arguments.base is None:
            timed("mmdebstrap", lambda: debian.make_base(base))
        else:
            shutil.copy(arguments.base, base)
        debian.write_context(house.base / "context")
        engines = [
            stack.enter_context(clients.engine(house, name, is_root=is_root, program=None))
            for name in ("maker", "taker")
        ]
        tool = stack.enter_context(containers.tool(house, "tool", is_root=is_root))
        hosts = {
            form: stack.enter_context(docker_registry(house.base / f"registry-{form}")).host
            for form in FORMS
        }
        check(Stage(tool, *engines, hosts), base, house.base / "context")


if __name__ == "__main__":
    main()
