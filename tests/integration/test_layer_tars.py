"""Layer tars are to other programs what they are here: GNU tar, umoci, the kernel's overlayfs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.mounts import Layers, overlay_mount, public_directory, union_mount
from tests.support.tars import TarBuilder, apply, xattrs
from tests.support.tree import Record, build_layers, snapshot
from tests.support.users import NOBODY, acting_as
from unionfuse.image.layers.pack import PackOptions, pack_merged, pack_upper
from unionfuse.offline.layers import opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

N_LOWERS = 4
TIMEOUT = 60
NANO = 10**9


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, timeout=TIMEOUT)


def recorded(root: Path) -> dict[bytes, Record]:
    """Record what a layer tar can keep: whole seconds, no sockets, not the root's attributes.

    Which names are of one file is recorded; the count is not, since an overlay counts the hidden
    ones too.
    """
    found = snapshot(root, directory_times=True, private_xattrs=False, entry_inos=False)
    del found[b"."]
    return {
        name: replace(
            record,
            mtime_ns=None if record.mtime_ns is None else record.mtime_ns // NANO * NANO,
            ctime_ns=None,
            nlink=None,
            is_sparse=False,
            xattrs=tuple(pair for pair in record.xattrs if pair[1]),
        )
        for name, record in found.items()
        if record.type != "s"
    }


def tars_of(layers: Sequence[Path], directory: Path) -> list[Path]:
    """Pack each layer, topmost first, as an upper of those below it; return them bottom first."""
    tars = []
    for number in reversed(range(len(layers))):
        path = directory / f"{number}.tar"
        upper, *lowers = map(os.fsencode, layers[number:])
        with path.open("wb") as file, opened(upper, lowers) as stack:
            pack_upper(stack, file.write)
        tars.append(path)
    return tars


def image_of(tars: Sequence[Path], directory: Path) -> None:
    """Make an image layout of layer tars, the bottom first."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    oci = "application/vnd.oci.image."
    layers = [put(tar.read_bytes(), oci + "layer.v1.tar") for tar in tars]
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    manifest = {
        "schemaVersion": 2,
        "config": put(json.dumps(config).encode(), oci + "config.v1+json"),
        "layers": layers,
    }
    named = put(json.dumps(manifest).encode(), oci + "manifest.v1+json")
    named["annotations"] = {"org.opencontainers.image.ref.name": "tag"}
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))


def mounted(base: Path, lowers: Sequence[Path]) -> Layers:
    """Return what to mount to see `lowers` through an empty upper."""
    layers = Layers.create(base, 0)
    return replace(layers, lowers=tuple(lowers))


@pytest.mark.parametrize("seed", range(1, 4))
def test_umoci_and_overlayfs_show_the_same_of_layers_that_were_packed(
    tmp_path: Path, seed: int
) -> None:
    made = Layers.create(tmp_path / "made", N_LOWERS)
    build_layers(made.lowers, made.upper, seed)
    tars = tars_of(made.lowers, tmp_path)
    image_of(tars, tmp_path / "image")
    run("umoci", "unpack", "--image", tmp_path / "image:tag", tmp_path / "bundle")
    applied = [tmp_path / f"applied-{number}" for number in range(len(tars))]
    for tar, path in zip(tars, applied, strict=True):
        apply(tar.read_bytes(), path)

    with overlay_mount(mounted(tmp_path / "first", made.lowers)) as mnt:
        expected = recorded(mnt)
    with overlay_mount(mounted(tmp_path / "second", applied[::-1])) as mnt:
        assert recorded(mnt) == expected
    assert recorded(tmp_path / "bundle/rootfs") == expected

    whole = tmp_path / "whole.tar"
    with whole.open("wb") as file, opened(None, list(map(os.fsencode, made.lowers))) as stack:
        pack_merged(stack, file.write, PackOptions())
    apply(whole.read_bytes(), tmp_path / "whole")
    assert recorded(tmp_path / "whole") == expected


@pytest.mark.parametrize(
    "options",
    [
        ["--format=ustar"],
        ["--format=gnu"],
        ["--format=oldgnu"],
        ["--format=pax", "--xattrs", "--xattrs-include=*"],
        ["--format=pax", "--sparse", "--sparse-version=1.0"],
        ["--format=pax", "--sparse", "--sparse-version=0.1"],
    ],
    ids=lambda options: " ".join(options),
)
def test_tars_of_gnu_tar_are_what_it_makes_of_them(tmp_path: Path, options: list[str]) -> None:
    source = tmp_path / "source"
    (source / "d/e").mkdir(parents=True)
    (source / "d/f").write_bytes(b"content" * 10_000)
    (source / ("n" * 98)).write_bytes(b"x")
    (source / "d" / ("m" * 90)).mkdir()
    (source / "empty").touch()
    os.link(source / "d/f", source / "zlink")
    os.symlink("d/f", source / "s")
    os.mkfifo(source / "p")
    os.chown(source / "d/e", 1001, 2000)
    os.chmod(source / "d/e", 0o2751)
    with (source / "sparse").open("wb") as file:
        for offset in (1 << 20, 5 << 20):
            file.seek(offset)
            file.write(b"data" * 1000)
        file.truncate(9 << 20)
    if "ustar" not in options[0]:
        (source / ("long/" * 50)).mkdir(parents=True)
        os.symlink("t" * 200, source / "longlink")
    if "--xattrs" in options:
        os.setxattr(source / "d", "user.k", b"value")
    tar = tmp_path / "t.tar"
    run("tar", "-C", source, *options, "-cf", tar, ".")
    (tmp_path / "by-tar").mkdir()
    run("tar", "-C", tmp_path / "by-tar", "--xattrs", "--numeric-owner", "-xpf", tar)

    apply(tar.read_bytes(), tmp_path / "by-us")

    assert recorded(tmp_path / "by-us") == recorded(tmp_path / "by-tar")
    if "--sparse" in options:
        assert (tmp_path / "by-us/sparse").stat().st_blocks * 512 < 1 << 20


def test_a_tar_that_was_made_here_is_read_by_gnu_tar(tmp_path: Path) -> None:
    made = Layers.create(tmp_path / "made", 1)
    build_layers(made.lowers, made.upper, 9)
    tar = tmp_path / "t.tar"
    with tar.open("wb") as file, opened(None, [os.fsencode(made.lowers[0])]) as stack:
        pack_merged(stack, file.write)
    (tmp_path / "by-tar").mkdir()
    run(
        "tar", "-C", tmp_path / "by-tar", "--xattrs", "--xattrs-include=*", "--numeric-owner",
        "-xpf", tar,
    )  # fmt: skip
    assert recorded(tmp_path / "by-tar") == recorded(made.lowers[0])


def test_umoci_takes_whiteouts_and_duplicates_as_they_are_taken_here(tmp_path: Path) -> None:
    bottom = (
        TarBuilder().dir("./").dir("d").file("d/a", b"a").file("d/b", b"b").dir("d/sub")
        .file("d/sub/x").file("gone").dir("gonedir").file("gonedir/f").file("f", b"old")
        .dir("o").file("o/old").dir("o/sub").file("o/sub/old").symlink("l", "d")
    )  # fmt: skip
    top = (
        TarBuilder().dir("./").file(".wh.gone").file(".wh.gonedir").dir("o").file("o/new")
        .file("o/.wh..wh..opq").dir("o/sub").file("o/sub/new").file("f", b"first")
        .file("f", b"second", pax_headers=xattrs(user__k="v")).dir("d", mode=0o700)
        .file("d/.wh.b").file("d/sub", b"now a file")
    )  # fmt: skip
    tars = []
    for number, builder in enumerate((bottom, top)):
        tars.append(tmp_path / f"{number}.tar")
        tars[-1].write_bytes(builder.bytes())
        apply(tars[-1].read_bytes(), tmp_path / f"layer-{number}")
    image_of(tars, tmp_path / "image")
    run("umoci", "unpack", "--image", tmp_path / "image:tag", tmp_path / "bundle")
    lowers = (tmp_path / "layer-1", tmp_path / "layer-0")
    with overlay_mount(mounted(tmp_path / "m", lowers)) as mnt:
        found = recorded(mnt)
    assert found == recorded(tmp_path / "bundle/rootfs")
    assert found[b"f"].size == len(b"second")
    assert b"o/old" not in found


@pytest.mark.fuse
def test_a_mount_shows_owners_of_what_one_user_has_applied() -> None:
    data = (
        TarBuilder().dir("./").dir("d", mode=0o2711, uid=7, gid=8)
        .file("d/f", b"data", mode=0o4555, uid=1001, gid=1002).link("d/h", "d/f").fifo("p")
        .file("d/g", mode=0, pax_headers=xattrs(user__k="v")).device("c", 1, 3).dir("o")
        .file("o/.wh..wh..opq").file(".wh.gone").bytes()
    )  # fmt: skip
    below = TarBuilder().dir("./").file("gone").dir("o").file("o/old").file("kept").bytes()
    with public_directory() as base:
        base.chmod(0o777)
        with acting_as(NOBODY):
            for name, layer in (("user-top", data), ("user-below", below)):
                apply(layer, base / name)
        for name, layer in (("top", data), ("below", below)):
            apply(layer, base / name)
        by_user = mounted(base / "first", [base / "user-top", base / "user-below"])
        with union_mount(by_user, read_only=True) as mnt:
            found = recorded(mnt)
        with overlay_mount(mounted(base / "second", [base / "top", base / "below"])) as mnt:
            assert found == recorded(mnt)
        assert set(found) == {b"c", b"d", b"d/f", b"d/g", b"d/h", b"kept", b"o", b"p"}
