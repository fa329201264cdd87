import json
import time
from collections.abc import Callable

import pytest

from tests.support import registry as fake
from tests.support.registry import FakeRegistry
from tests.support.registry_images import add_image, image_documents
from unionfuse.image import media_types as types
from unionfuse.image.errors import (
    Corrupt,
    ImageError,
    Malformed,
    NotFound,
    Refused,
    RegistryError,
)
from unionfuse.image.manifest import Platform
from unionfuse.image.registry.pull import Pulled, PullOptions, pull
from unionfuse.image.registry.running import run
from unionfuse.image.store.blobs import Blobs

LAYERS = [b"the base" * 1000, b"more", b"on top"]


def get(reach, blobs: Blobs, name: str = "box:latest", **more: object) -> Pulled:
    options = PullOptions(connection=reach.options, **more)
    return run(lambda: pull(reach.reference(name), blobs, options))


def index_of(*entries: dict[str, object], media_type: str = types.OCI_INDEX) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries)}


def on(entry: dict[str, object], platform: str) -> dict[str, object]:
    parts = [*platform.split("/"), ""]
    named = {"os": parts[0], "architecture": parts[1], "variant": parts[2]}
    return {**entry, "platform": {key: value for key, value in named.items() if value}}


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_an_image_comes_with_all_that_it_names(form, registry: FakeRegistry, reach, blobs) -> None:
    entry = add_image(registry, LAYERS, form=form)
    pulled = get(reach, blobs)
    assert pulled.root.digest == pulled.descriptor.digest == entry["digest"]
    assert pulled.root.media_type == entry["mediaType"]
    assert [blobs.read(layer.digest) for layer in pulled.manifest.layers] == LAYERS
    assert pulled.config_data == blobs.read(pulled.manifest.config.digest)
    assert entry["digest"] in blobs


def test_a_second_pull_gets_the_manifest_alone(registry: FakeRegistry, reach, blobs) -> None:
    add_image(registry, LAYERS)
    get(reach, blobs)
    registry.requests.clear()
    get(reach, blobs)
    assert [one.path for one in registry.requests] == ["/v2/box/manifests/latest"]


def test_a_digest_that_is_there_is_not_asked_for(registry: FakeRegistry, reach, blobs) -> None:
    entry = add_image(registry, LAYERS)
    get(reach, blobs)
    registry.requests.clear()
    get(reach, blobs, f"box@{entry['digest']}")
    assert registry.requests == []


def test_layers_of_the_same_bytes_come_once(registry: FakeRegistry, reach, blobs) -> None:
    add_image(registry, [b"same", b"same", b"other"])
    get(reach, blobs)
    assert len(registry.asked("GET", fake.digest(b"same"))) == 1


def test_each_layer_is_told_of_in_order(registry: FakeRegistry, reach, blobs) -> None:
    add_image(registry, [*LAYERS, LAYERS[0]])
    # the bottom one comes last
    registry.fault("GET", fake.digest(LAYERS[0]), fake.cut, times=2)
    told = []

    def tell(pulled: Pulled, number: int, check: Callable[[], None]) -> None:
        check()
        assert pulled.manifest.layers[number].digest in blobs
        told.append(number)

    get(reach, blobs, on_layer=tell)
    assert told == [0, 1, 2, 3]


def test_what_fails_in_the_telling_is_raised(registry: FakeRegistry, reach, blobs) -> None:
    add_image(registry, LAYERS)

    def tell(*_: object) -> None:
        raise Corrupt("no such diff_id")

    with pytest.raises(Corrupt, match="no such diff_id"):
        get(reach, blobs, on_layer=tell)


def test_when_a_layer_fails_the_telling_of_others_ends(registry, reach, blobs) -> None:
    add_image(registry, LAYERS)
    registry.fault("GET", fake.digest(LAYERS[2]), fake.answers(410))

    def tell(_: Pulled, __: int, check: Callable[[], None]) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            check()
            time.sleep(0.001)

    begun = time.monotonic()
    with pytest.raises(RegistryError, match="410"):
        get(reach, blobs, on_layer=tell)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("form", [types.OCI_INDEX, types.DOCKER_INDEX])
def test_of_an_index_the_image_of_the_platform_comes(form, registry, reach, blobs) -> None:
    arm = add_image(registry, [b"arm"], tag=None)
    intel = add_image(registry, [b"intel"], tag=None)
    root = registry.add_manifest(
        index_of(on(arm, "linux/arm64"), on(intel, "linux/amd64"), media_type=form), "latest"
    )
    pulled = get(reach, blobs, platform=Platform("amd64", "linux"))
    assert pulled.descriptor.digest == intel["digest"]
    assert pulled.root.digest == root["digest"]
    assert arm["digest"] not in blobs
    assert root["digest"] in blobs


def test_of_an_index_every_image_may_come(registry: FakeRegistry, reach, blobs) -> None:
    arm = add_image(registry, [b"arm", b"both"], tag=None)
    intel = add_image(registry, [b"intel", b"both"], tag=None)
    index = index_of(on(arm, "linux/arm64"), on(intel, "linux/amd64"))
    registry.add_manifest(index, "latest")
    get(reach, blobs, platform=Platform("amd64", "linux"), all_platforms=True)
    assert arm["digest"] in blobs
    assert fake.digest(b"arm") in blobs


def test_without_an_image_for_the_platform_it_says_what_there_is(registry, reach, blobs) -> None:
    arm = add_image(registry, [b"arm"], tag=None)
    registry.add_manifest(index_of(on(arm, "linux/arm/v7")), "latest")
    with pytest.raises(NotFound, match="no image for linux/s390x; it has linux/arm/v7"):
        get(reach, blobs, platform=Platform("s390x", "linux"))


def test_an_index_in_an_index_is_looked_into(registry: FakeRegistry, reach, blobs) -> None:
    intel = add_image(registry, LAYERS, tag=None)
    inner = registry.add_manifest(index_of(on(intel, "linux/amd64")), None)
    registry.add_manifest(index_of(inner), "latest")
    pulled = get(reach, blobs, platform=Platform("amd64", "linux"))
    assert pulled.descriptor.digest == intel["digest"]


def test_indexes_in_indexes_have_an_end(registry: FakeRegistry, reach, blobs) -> None:
    entry = registry.add_manifest(index_of(), None)
    for depth in range(9):
        entry = registry.add_manifest(index_of(entry), f"depth{depth}")
    with pytest.raises(Refused, match="deep"):
        get(reach, blobs, "box:depth8")


def test_many_indexes_have_an_end(registry, reach, blobs, monkeypatch) -> None:
    monkeypatch.setattr("unionfuse.image.registry.pull.MAX_DOCUMENTS", 5)
    inner = [
        registry.add_manifest({**index_of(), "annotations": {"n": str(n)}}, None) for n in range(9)
    ]
    registry.add_manifest(index_of(*inner), "latest")
    with pytest.raises(Refused, match="more than 5 manifests"):
        get(reach, blobs)


def test_an_index_that_names_itself_is_corrupt(registry: FakeRegistry, reach, blobs) -> None:
    name = fake.digest(b"whatever")
    itself = {"mediaType": types.OCI_INDEX, "digest": name, "size": 100}
    data = json.dumps(index_of(itself)).encode()
    registry.manifests["box", "latest"] = (types.OCI_INDEX, data)
    registry.fault("GET", name, fake.answers(200, data, {"Content-Type": types.OCI_INDEX}))
    with pytest.raises(Corrupt, match=f"not {name}"):
        get(reach, blobs)


def test_a_foreign_layer_is_refused_with_a_reason(registry: FakeRegistry, reach, blobs) -> None:
    add_image(
        registry, LAYERS, layer_type="application/vnd.oci.image.layer.nondistributable.v1.tar"
    )
    with pytest.raises(Refused, match="has the foreign layer sha256:"):
        get(reach, blobs)
    assert len(registry.requests) == 1


def test_a_layer_of_an_unknown_kind_is_refused(registry: FakeRegistry, reach, blobs) -> None:
    add_image(registry, LAYERS, layer_type="application/x-squashfs")
    with pytest.raises(Refused, match="x-squashfs"):
        get(reach, blobs)


def test_what_is_no_image_is_refused(registry: FakeRegistry, reach, blobs) -> None:
    add_image(registry, LAYERS, config_type="application/vnd.cncf.helm.config.v1+json")
    with pytest.raises(Refused, match="is no image, but"):
        get(reach, blobs)


def test_a_config_of_other_layers_is_malformed(registry: FakeRegistry, reach, blobs) -> None:
    manifest, blob_list = image_documents(LAYERS)
    for blob in blob_list:
        registry.add_blob(blob)
    del manifest["layers"][1]
    registry.add_manifest(manifest, "latest")
    with pytest.raises(Malformed, match="2 layers, its config 3"):
        get(reach, blobs)


def test_a_manifest_without_an_end_is_refused(registry: FakeRegistry, reach, blobs) -> None:
    registry.fault("GET", "/manifests/", fake.endless)
    with pytest.raises(Refused, match="more than 8388608 bytes"):
        get(reach, blobs)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b'{"schemaVersion": 2}', b"\xff" * 9, b"[" * 100_000]
)
def test_what_is_no_manifest_is_told_of(body: bytes, registry, reach, blobs) -> None:
    registry.fault(
        "GET", "/manifests/", fake.answers(200, body, {"Content-Type": types.OCI_MANIFEST})
    )
    with pytest.raises(Malformed) as caught:
        get(reach, blobs)
    assert len(str(caught.value)) < 400


def test_a_manifest_of_another_digest_than_announced_is_corrupt(registry, reach, blobs) -> None:
    headers = {"Docker-Content-Digest": fake.digest(b"another")}
    registry.fault("GET", "/manifests/", fake.answers(200, b"{}", headers))
    with pytest.raises(Corrupt):
        get(reach, blobs)


def test_a_manifest_of_another_digest_than_asked_for_is_corrupt(registry, reach, blobs) -> None:
    registry.fault("GET", "/manifests/", fake.answers(200, b"{}"))
    with pytest.raises(Corrupt):
        get(reach, blobs, f"box@{fake.digest(b'another')}")


def test_a_manifest_that_was_cut_is_asked_for_again(registry: FakeRegistry, reach, blobs) -> None:
    add_image(registry, LAYERS)
    registry.fault("GET", "/manifests/", fake.cut, times=2)
    get(reach, blobs)


def test_a_failed_pull_leaves_no_manifest_and_can_be_done_again(registry, reach, blobs) -> None:
    entry = add_image(registry, LAYERS)
    registry.fault("GET", fake.digest(LAYERS[2]), fake.answers(200, b"no top"), times=1)
    with pytest.raises(ImageError):
        get(reach, blobs)
    assert entry["digest"] not in blobs
    get(reach, blobs)
    assert entry["digest"] in blobs


def test_there_is_no_such_tag(registry: FakeRegistry, reach, blobs) -> None:
    with pytest.raises(NotFound, match="MANIFEST_UNKNOWN"):
        get(reach, blobs)
