"""Images made here, for tests: layers as dictionaries, archives as other programs write them."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unionfuse.image import media_types
from unionfuse.image.digest import digest_of
from unionfuse.image.manifest import Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

    from unionfuse.image.digest import Digest
    from unionfuse.image.store.store import Store

Layer = dict[str, "bytes | None"]
"""Names and contents; one that ends in a slash is a directory."""

BASE: Layer = {"./": None, "etc/": None, "etc/name": b"base\n", "gone": b"not for long\n"}
CHANGES: Layer = {"./": None, "etc/": None, "etc/name": b"changed\n", ".wh.gone": b""}


def tar_of(layer: Layer) -> bytes:
    """Return a layer as a tar, without what changes from run to run."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in layer.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.mode = 0o755 if name.endswith("/") else 0o644
            info.mtime = 1_000_000_000
            info.uid, info.gid = os.geteuid(), os.getegid()
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


@dataclass(frozen=True)
class MadeImage:
    """An image that was made here.

    Attributes:
        blobs: all of its documents and layers.
        tars: its layers, not compressed, the bottom first.
    """

    descriptor: Descriptor
    config: Descriptor
    blobs: dict[Digest, bytes]
    tars: tuple[bytes, ...]


def make_image(
    *layers: Layer,
    compression: str = "gzip",
    architecture: str = "amd64",
    config: dict[str, Any] | None = None,
    diff_ids: list[str] | None = None,
) -> MadeImage:
    """Make an image of layers, the bottom first."""
    tars = tuple(map(tar_of, layers))
    blobs: dict[Digest, bytes] = {}

    def kept(media_type: str, data: bytes) -> Descriptor:
        blobs[digest_of(data)] = data
        return Descriptor(media_type, digest_of(data), len(data))

    packed = [gzip.compress(tar, mtime=0) if compression == "gzip" else tar for tar in tars]
    layer_type = media_types.OCI_LAYER_GZIP if compression == "gzip" else media_types.OCI_LAYER
    document = {
        "architecture": architecture,
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": config or {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids or [digest_of(tar) for tar in tars]},
        "history": [{"created_by": f"step {number}"} for number in range(len(tars))],
    }
    config_descriptor = kept(media_types.OCI_CONFIG, json.dumps(document).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": as_json(config_descriptor),
        "layers": [as_json(kept(layer_type, data)) for data in packed],
    }
    descriptor = kept(media_types.OCI_MANIFEST, json.dumps(manifest).encode())
    return MadeImage(descriptor, config_descriptor, blobs, tars)


def as_json(descriptor: Descriptor) -> dict[str, Any]:
    """Return a descriptor as it stands in documents."""
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }


def put(store: Store, image: MadeImage) -> Descriptor:
    """Put the blobs of an image into a store; return its manifest."""
    for data in image.blobs.values():
        store.blobs.put(data)
    return image.descriptor


def layout_files(*named: tuple[str | None, MadeImage]) -> dict[str, bytes]:
    """Return the files of an image layout, with names annotated as podman and skopeo do."""
    entries = []
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    for name, image in named:
        entry = as_json(image.descriptor)
        if name:
            entry["annotations"] = {"org.opencontainers.image.ref.name": name}
        entries.append(entry)
        for digest, data in image.blobs.items():
            files[f"blobs/{digest.replace(':', '/')}"] = data
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return files


def docker_files(image: MadeImage, *tags: str) -> dict[str, bytes]:
    """Return the files of an archive as docker wrote it before 25."""
    config = image.blobs[image.config.digest]
    name = f"{image.config.digest.partition(':')[2]}.json"
    layers = [f"{digest_of(tar).partition(':')[2]}/layer.tar" for tar in image.tars]
    manifest = [{"Config": name, "RepoTags": list(tags) or None, "Layers": layers}]
    files = dict(zip(layers, image.tars, strict=True))
    return {**files, name: config, "manifest.json": json.dumps(manifest).encode()}


def archive(files: dict[str, bytes]) -> bytes:
    """Return files as a tar, in the order in which they are given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def write_files(directory: Path, files: dict[str, bytes]) -> Path:
    """Write files below a directory; return it."""
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def merged(trees: Iterable[Path]) -> dict[str, bytes]:
    """Return the files that layers show together, the top first, whiteouts as `c 0 0`."""
    found: dict[str, bytes] = {}
    hidden: set[str] = set()
    for tree in trees:
        for path in sorted(tree.rglob("*")):
            name = str(path.relative_to(tree))
            if name in found or name in hidden:
                continue
            if path.is_char_device():
                hidden.add(name)
            elif path.is_file():
                found[name] = path.read_bytes()
    return found


def write_nothing_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a store not wait for the disk, which takes most of the time of a small test."""
    monkeypatch.setattr("unionfuse.image.store.unpacking.syncfs", lambda _: None)
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr("unionfuse.image.store.database.SYNCHRONOUS", "OFF")
