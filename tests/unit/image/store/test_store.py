import json
import os

import pytest

from tests.support.images import BASE, CHANGES, as_json, make_image, merged, put
from unionfuse.image import media_types
from unionfuse.image.errors import BadReference, Corrupt, NotFound, Refused, StoreError
from unionfuse.image.manifest import Descriptor, Platform
from unionfuse.image.reference import Reference
from unionfuse.image.store.database import DatabaseDamaged
from unionfuse.image.store.places import default_root
from unionfuse.image.store.store import Store

X, Y = Reference.parse("localhost/x:1"), Reference.parse("localhost/y:1")


def add(store, image, reference=X):
    return store.add(reference, put(store, image))


def put_index(store, *images):
    """Put an index into a store; of images without blobs, the entry alone."""
    entries = []
    for image, architecture, is_there in images:
        if is_there:
            put(store, image)
        platform = {"os": "linux", "architecture": architecture}
        entries.append({**as_json(image.descriptor), "platform": platform})
    data = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return Descriptor(media_types.OCI_INDEX, store.blobs.put(data), len(data))


def test_layers_are_unpacked_and_given_the_top_first(store):
    image = add(store, make_image(BASE, CHANGES))
    assert [(path / "etc/name").read_bytes() for path in image.layers] == [b"changed\n", b"base\n"]
    assert merged(image.layers) == {"etc/name": b"changed\n"}


def test_layers_are_shared_by_images(store):
    base = add(store, make_image(BASE))
    more = add(store, make_image(BASE, CHANGES), Y)
    assert more.layers[1:] == base.layers


def test_an_image_is_found_by_name_id_and_digest(store):
    image = add(store, make_image(BASE))
    digits = image.id.partition(":")[2]
    texts = ("localhost/x:1", "x:1", image.id, digits[:6], image.descriptor.digest,
             f"localhost/x@{image.descriptor.digest}")  # fmt: skip
    assert {store.resolve(text).id for text in texts} == {image.id}


@pytest.mark.parametrize(
    "text", ["localhost/x:2", "y", "0000000", "localhost/x@sha256:" + "0" * 64]
)
def test_what_is_not_there_is_not_found(store, text):
    add(store, make_image(BASE))
    with pytest.raises(NotFound, match="no image"):
        store.resolve(text)


def test_what_is_no_name_is_told(store):
    with pytest.raises(BadReference):
        store.resolve("No Name")


def test_a_name_passes_over_to_another_image(store):
    add(store, make_image(BASE))
    later = add(store, make_image(CHANGES))
    assert store.resolve("localhost/x:1").id == later.id
    assert len(store.images()) == 1


def test_an_id_removes_every_name(store):
    image = add(store, make_image(BASE))
    store.tag("localhost/x:1", Y)
    assert store.remove("localhost/y:1") == ["localhost/y:1"]
    store.tag("localhost/x:1", Y)
    assert store.remove(image.id) == ["localhost/x:1", "localhost/y:1"]
    assert store.images() == []


def test_a_name_with_a_digest_can_not_be_given(store):
    image = add(store, make_image(BASE))
    with pytest.raises(BadReference, match="NAME:TAG"):
        store.tag("x:1", Reference.parse(f"localhost/x@{image.descriptor.digest}"))


def test_a_missing_blob_leaves_the_image_without_a_name(store):
    image = make_image(BASE)
    descriptor = put(store, image)
    store.blobs.remove(image.config.digest)
    with pytest.raises(NotFound):
        store.add(X, descriptor)
    assert store.database.names() == []


def test_a_layer_that_is_not_its_diff_id_is_not_unpacked(store, tmp_path):
    image = make_image(BASE, diff_ids=["sha256:" + "1" * 64])
    with pytest.raises(Corrupt):
        add(store, image)
    assert store.database.names() == []
    assert list((tmp_path / "store/layers").iterdir()) == []
    left = {path.name.partition("-")[0] for path in (tmp_path / "store/tmp").iterdir()}
    assert left == {"lease"}


def test_a_foreign_layer_is_refused_though_the_same_is_unpacked(store):
    image = make_image(BASE)
    add(store, image)
    manifest = json.loads(image.blobs[image.descriptor.digest])
    manifest["layers"][0]["mediaType"] = (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    )
    data = json.dumps(manifest).encode()
    foreign = Descriptor(image.descriptor.media_type, store.blobs.put(data), len(data))
    with pytest.raises(Refused, match="foreign"):
        store.add(Reference.parse("localhost/foreign:1"), foreign)


def test_a_damaged_layer_blob_is_not_unpacked(store):
    image = make_image(BASE, compression="none")
    descriptor = put(store, image)
    layer = next(digest for digest, data in image.blobs.items() if data == image.tars[0])
    store.blobs.path(layer).write_bytes(image.tars[0].replace(b"base", b"BASE"))
    with pytest.raises(Corrupt):
        store.add(X, descriptor)


def test_limits_hold_for_layers(store):
    store.limits = type(store.limits)(entries=2)
    with pytest.raises(Refused):
        add(store, make_image(BASE))


def test_of_an_index_the_image_of_the_platform_is_meant(store):
    arm, amd = make_image(CHANGES, architecture="arm64"), make_image(BASE)
    root = put_index(store, (arm, "arm64", True), (amd, "amd64", True))
    store.add(X, root, platform=Platform("amd64", "linux"))
    found = {arch: store.resolve("x:1", Platform(arch, "linux")).id for arch in ("arm64", "amd64")}
    assert found == {"arm64": arm.config.digest, "amd64": amd.config.digest}
    with pytest.raises(NotFound, match="linux/riscv64"):
        store.resolve("x:1", Platform("riscv64", "linux"))


def test_of_an_index_the_only_image_that_is_here_will_do(store):
    other, here = make_image(BASE), make_image(CHANGES, architecture="s390x")
    root = put_index(store, (other, "amd64", False), (here, "s390x", True))
    assert store.add(X, root).id == here.config.digest
    assert [each.image.id for each in store.images()] == [here.config.digest]


def test_an_image_of_another_platform_is_not_what_was_asked_for(store):
    add(store, make_image(BASE))
    with pytest.raises(NotFound, match="linux/amd64, not for linux/arm64"):
        store.resolve("x:1", Platform("arm64", "linux"))


def test_a_layer_without_an_entry_for_a_directory_has_it_from_below(store):
    below = {"./": None, "etc/": None}
    above = {"etc/new": b"new\n"}
    image = make_image(below, above)
    descriptor = put(store, image)
    found = store.add(X, descriptor)
    assert (found.layers[0] / "etc").stat().st_mtime == 1_000_000_000
    assert found.layers[0].parent.name.startswith("chain-")
    assert not found.layers[1].parent.name.startswith("chain-")


def test_such_a_layer_waits_for_those_below(store):
    image = make_image(BASE, {"etc/new": b"new\n"})
    descriptor = put(store, image)
    found = store.add(X, descriptor, unpack=False)
    bottom, top = found.stack
    assert store.unpack_layer(top, None) is None
    unpacked = store.unpack_layer(bottom, None)
    assert unpacked.is_new
    assert store.unpack_layer(top, [unpacked.directory]).is_new
    assert not store.unpack_layer(top, None).is_new


def test_the_root_of_a_store_is_an_image_layout(store, tmp_path):
    image = add(store, make_image(BASE))
    root = tmp_path / "store"
    assert json.loads((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    [entry] = json.loads((root / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == image.descriptor.digest
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "localhost/x:1"}


def test_a_database_that_is_lost_is_made_anew(store, tmp_path):
    image = add(store, make_image(BASE))
    facts = store.database.layers()
    store.close()
    for path in (tmp_path / "store").glob("store.db*"):
        path.unlink()
    with Store.open(tmp_path / "store") as again:
        assert again.resolve("x:1").id == image.id
        assert again.database.layers() == facts


def test_a_database_that_is_damaged_is_told_and_mended(store, tmp_path):
    add(store, make_image(BASE))
    store.close()
    (tmp_path / "store/store.db").write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseDamaged, match="verify --repair"):
        Store.open(tmp_path / "store")
    with Store.mend(tmp_path / "store") as mended:
        assert mended.resolve("x:1")


def test_names_that_are_lost_are_told_of_every_time(store, tmp_path):
    add(store, make_image(BASE))
    store.close()
    for path in (tmp_path / "store").glob("store.db*"):
        path.unlink()
    (tmp_path / "store/index.json").write_text("nothing")
    for _ in range(2):
        with pytest.raises(StoreError, match="the names of images are lost"):
            Store.open(tmp_path / "store")


def test_a_store_of_a_later_version_is_left_alone(store, tmp_path):
    with store.database.transaction():
        store.database._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="version 99"):
        Store.open(tmp_path / "store")


def test_a_user_without_a_home_is_told_to_name_a_store(monkeypatch):
    for name in ("HOME", "XDG_DATA_HOME", "UNIONFUSE_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)  # of nobody
    with pytest.raises(StoreError, match="UNIONFUSE_ROOT"):
        default_root(is_root=False)


def test_where_no_store_can_be_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="no store can be at"):
        Store.open(tmp_path / "file/store")
