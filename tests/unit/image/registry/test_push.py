import json

import pytest

from tests.support.registry import FakeRegistry
from tests.support.registry_images import image_documents
from unionfuse.image import media_types as types
from unionfuse.image.digest import Digest
from unionfuse.image.errors import BadReference, Corrupt, NotFound, Refused
from unionfuse.image.manifest import Descriptor, Platform
from unionfuse.image.registry.progress import DONE, MOUNTED, PRESENT
from unionfuse.image.registry.push import Pushed, PushOptions, push
from unionfuse.image.registry.running import run
from unionfuse.image.store.blobs import Blobs

LAYERS = [b"the base" * 1000, b"more"]


def put(reach, blobs: Blobs, root: Descriptor, name: str = "box:new", **more: object) -> Pushed:
    options = PushOptions(connection=reach.options, **more)
    return run(lambda: push(reach.reference(name), root, blobs, options))


def store(blobs: Blobs, layers: list[bytes] = LAYERS, **kinds: str) -> Descriptor:
    manifest, parts = image_documents(layers, **kinds)
    for part in parts:
        blobs.put(part)
    # spaces and all: it is to arrive as it is
    data = json.dumps(manifest, indent=3).encode()
    return Descriptor(manifest["mediaType"], blobs.put(data), len(data))


def store_index(blobs: Blobs, **entries: Descriptor) -> Descriptor:
    document = {
        "schemaVersion": 2,
        "mediaType": types.OCI_INDEX,
        "manifests": [
            {
                "mediaType": entry.media_type,
                "digest": entry.digest,
                "size": entry.size,
                "platform": {"os": "linux", "architecture": name},
            }
            for name, entry in entries.items()
        ],
    }
    data = json.dumps(document).encode()
    return Descriptor(types.OCI_INDEX, blobs.put(data), len(data))


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_an_image_arrives_byte_by_byte(form: str, registry: FakeRegistry, reach, blobs) -> None:
    root = store(blobs, form=form)
    pushed = put(reach, blobs, root)
    assert pushed.descriptor == root
    assert registry.manifests["box", "new"] == (root.media_type, blobs.read(root.digest))
    assert pushed.outcomes == {DONE: 3}


def test_the_manifest_goes_last(registry: FakeRegistry, reach, blobs) -> None:
    put(reach, blobs, store(blobs))
    assert [one.path for one in registry.requests][-1] == "/v2/box/manifests/new"
    assert len(registry.asked("PUT", "/manifests/")) == 1


def test_a_second_push_sends_no_blob(registry: FakeRegistry, reach, blobs) -> None:
    root = store(blobs)
    put(reach, blobs, root)
    assert put(reach, blobs, root, "box:again").outcomes == {PRESENT: 3}


def test_blobs_of_another_repository_are_mounted(registry: FakeRegistry, reach, blobs) -> None:
    root = store(blobs)
    put(reach, blobs, root, "other:1")
    sources = {Digest(name): ("other",) for name in registry.blobs}
    assert put(reach, blobs, root, sources=sources).outcomes == {MOUNTED: 3}


def test_a_whole_index_arrives_whole(registry: FakeRegistry, reach, blobs) -> None:
    root = store_index(blobs, amd64=store(blobs, [b"intel"]), arm64=store(blobs, [b"arm"]))
    pushed = put(reach, blobs, root)
    assert pushed.descriptor == root
    assert not pushed.left_out
    assert [one.path.rpartition("/")[2] for one in registry.asked("PUT", "/manifests/")][
        -1
    ] == "new"
    assert len({key for _, key in registry.manifests if ":" in key}) == 3


def test_of_an_index_that_is_not_all_here_one_image_is_pushed(registry, reach, blobs) -> None:
    intel = store(blobs, [b"intel"])
    arm = Descriptor(types.OCI_MANIFEST, Digest("sha256:" + "0" * 64), 7)
    root = store_index(blobs, arm64=arm, amd64=intel)
    pushed = put(reach, blobs, root, platform=None if _is_amd64() else Platform("amd64", "linux"))
    assert pushed.left_out
    assert pushed.descriptor.digest == intel.digest


def _is_amd64() -> bool:
    import os

    return os.uname().machine == "x86_64"


def test_of_an_index_one_image_can_be_chosen(registry: FakeRegistry, reach, blobs) -> None:
    arm = store(blobs, [b"arm"])
    root = store_index(blobs, amd64=store(blobs, [b"intel"]), arm64=arm)
    pushed = put(reach, blobs, root, platform=Platform("arm64", "linux"))
    assert pushed.descriptor.digest == arm.digest
    assert pushed.left_out


def test_what_is_not_here_is_not_pushed(registry: FakeRegistry, reach, blobs) -> None:
    root = store(blobs)
    blobs.remove(Digest(json.loads(blobs.read(root.digest))["layers"][0]["digest"]))
    with pytest.raises(NotFound, match="in the store"):
        put(reach, blobs, root)
    assert registry.requests == []


def test_a_foreign_layer_is_not_given_away(registry: FakeRegistry, reach, blobs) -> None:
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    with pytest.raises(Refused, match="foreign layer"):
        put(reach, blobs, store(blobs, layer_type=kind))


def test_a_name_with_another_digest_is_refused(registry: FakeRegistry, reach, blobs) -> None:
    with pytest.raises(BadReference, match="can not name"):
        put(reach, blobs, store(blobs), "box@sha256:" + "0" * 64)


def test_a_registry_that_got_something_else_is_told_of(registry, reach, blobs) -> None:
    from tests.support.registry import answers

    other = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    registry.fault("PUT", "/manifests/", answers(201, b"", other))
    with pytest.raises(Corrupt, match="there, not"):
        put(reach, blobs, store(blobs))
