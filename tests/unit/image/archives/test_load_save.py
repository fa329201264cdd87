import gzip
import io
import json
import os
import tarfile

import pytest
import zstandard

from tests.support.images import (
    BASE,
    CHANGES,
    archive,
    docker_files,
    layout_files,
    make_image,
    put,
    write_files,
)
from unionfuse.image.archives.load import load_directory, load_file
from unionfuse.image.archives.save import (
    Wanted,
    save_docker_archive,
    save_oci_archive,
    save_oci_directory,
)
from unionfuse.image.digest import digest_of
from unionfuse.image.errors import BadReference, Corrupt, ImageError, Malformed, NotFound, Refused
from unionfuse.image.reference import Reference
from unionfuse.image.store.store import Store
from unionfuse.image.watch import unwatched

X = Reference.parse("localhost/x:1")
IMAGE = make_image(BASE, CHANGES)


def load(store, data, *names):
    return load_file(store, io.BytesIO(data), len(data), names, unwatched)


def references(loaded):
    return [each.reference for each in loaded]


def saved(store, save, *wanted):
    out = io.BytesIO()
    save(store, list(wanted), out, unwatched)
    return out.getvalue()


def files_of(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def squeezed(data, how):
    if how == "gzip":
        return gzip.compress(data)
    return zstandard.compress(data) if how == "zstd" else data


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_an_oci_archive_is_loaded_as_it_is(store, how):
    loaded = load(store, squeezed(archive(layout_files(("localhost/x:1", IMAGE))), how))
    assert references(loaded) == ["localhost/x:1"]
    assert store.resolve("x:1").descriptor.digest == IMAGE.descriptor.digest
    assert len(store.resolve("x:1").layers) == 2


@pytest.mark.parametrize("is_last", [True, False], ids=["documents last", "documents first"])
def test_a_docker_archive_is_loaded_with_its_id(store, is_last):
    files = docker_files(IMAGE, "x:1", "localhost/y:2")
    if not is_last:
        files = dict(reversed(files.items()))
    assert references(load(store, archive(files))) == ["docker.io/library/x:1", "localhost/y:2"]
    assert store.resolve("x:1").id == store.resolve("y:2").id == IMAGE.config.digest


def test_links_of_an_old_docker_archive_are_followed(store):
    files = docker_files(IMAGE, "x:1")
    name, data = next((name, data) for name, data in files.items() if name.endswith("layer.tar"))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for each, content in files.items():
            info = tarfile.TarInfo(each)
            if each == name:
                info.type, info.linkname = tarfile.SYMTYPE, "../shared/layer.tar"
                content = b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("shared/layer.tar")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    assert load(store, out.getvalue())[0].image.id == IMAGE.config.digest


def test_an_image_layout_is_loaded_from_a_directory(store, tmp_path):
    directory = write_files(tmp_path / "layout", layout_files((None, IMAGE)))
    [loaded] = load_directory(store, directory, (X,), unwatched)
    assert loaded.reference == "localhost/x:1"
    assert store.resolve("x:1").descriptor.digest == IMAGE.descriptor.digest


def test_an_image_without_a_name_gets_one_of_its_id(store):
    short = IMAGE.config.digest.partition(":")[2][:12]
    for files in (layout_files(("latest", IMAGE)), docker_files(IMAGE)):
        assert references(load(store, archive(files))) == [f"localhost/unnamed:{short}"]


def test_a_name_can_be_given_to_one_image_only(store):
    both = archive(layout_files(("localhost/a:1", IMAGE), ("localhost/b:1", make_image(BASE))))
    with pytest.raises(BadReference, match="2 images"):
        load(store, both, X)
    assert references(load(store, both)) == ["localhost/a:1", "localhost/b:1"]


def without(files, part):
    return {name: data for name, data in files.items() if part not in name}


def changed(files, part, old, new):
    return {name: data.replace(old, new) if part in name else data for name, data in files.items()}


PLAIN = make_image(BASE, compression="none")
CONFIG = IMAGE.config.digest.partition(":")[2]
BAD = {
    "a layer is missing": (without(docker_files(IMAGE), "layer.tar"), NotFound),
    "the config is missing": (without(layout_files(("x", IMAGE)), CONFIG), NotFound),
    "a blob is changed": (changed(layout_files(("x", PLAIN)), "blobs", b"base", b"BASE"), Corrupt),
    "a layer is changed": (changed(docker_files(PLAIN), "layer", b"base", b"BASE"), Corrupt),
    "no JSON": ({"index.json": b"{"}, Malformed),
    "nothing that is known": ({"file": b"data"}, Malformed),
    "no image": ({"index.json": b'{"schemaVersion":2,"manifests":[]}'}, NotFound),
    "a strange digest": ({"blobs/sha256/../../x": b"", "blobs/md5/00": b""}, Malformed),
    "a path for a config": (
        {"manifest.json": b'[{"Config":"../../../etc/passwd","Layers":[]}]'},
        NotFound,
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_not_whole_is_told_and_nothing_is_named(store, what):
    files, error = BAD[what]
    with pytest.raises(error):
        load(store, archive(files))
    assert store.database.names() == []


def test_what_is_cut_is_told(store):
    data = archive(layout_files(("localhost/x:1", IMAGE)))
    for end in (0, 100, 700, len(data) // 2):
        with pytest.raises(ImageError):
            load(store, data[:end])
    with pytest.raises(Malformed):
        load(store, gzip.compress(data)[:-5])
    assert store.database.names() == []


@pytest.mark.parametrize("data", [b"", b"PK short", b"text\n" * 1000, bytes(1024)])
def test_what_is_no_archive_is_called_so(store, data):
    with pytest.raises(Malformed, match="this is no archive of images"):
        load(store, data)


def test_of_what_is_cut_no_part_stays(store, tmp_path):
    data = archive(layout_files(("localhost/x:1", make_image(BASE, {"big": os.urandom(5 << 20)}))))
    with pytest.raises(Malformed):
        load(store, data[:-100_000])
    assert not list((tmp_path / "store/tmp").glob("partial-*"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["index.json", f"blobs/{IMAGE.config.digest.replace(':', '/')}"])
def test_a_pipe_in_a_layout_is_not_waited_for(store, tmp_path, name):
    write_files(tmp_path / "layout", layout_files(("localhost/x:1", IMAGE)))
    (tmp_path / "layout" / name).unlink()
    os.mkfifo(tmp_path / "layout" / name)
    with pytest.raises(Malformed, match="is no file"):
        load_directory(store, tmp_path / "layout", (), unwatched)


def test_a_huge_header_is_not_read(store):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 32
    with pytest.raises(Refused):
        load(store, info.tobuf() + bytes(10_000))


def test_an_index_in_itself_ends(store):
    # no document can name its own digest: a long chain is what there can be
    files = layout_files(("x", IMAGE))
    inner = json.loads(files["index.json"])
    for _ in range(6):
        data = json.dumps(inner).encode()
        digest = digest_of(data)
        files[f"blobs/{digest.replace(':', '/')}"] = data
        entry = {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": digest,
            "size": len(data),
        }
        inner = {"schemaVersion": 2, "manifests": [entry]}
    files["index.json"] = json.dumps(inner).encode()
    with pytest.raises((Malformed, Refused)):
        load(store, archive(files))


@pytest.fixture
def wanted(store):
    return Wanted(X, store.add(X, put(store, IMAGE)))


def test_a_saved_oci_archive_is_loaded_byte_for_byte(store, wanted, tmp_path):
    data = saved(store, save_oci_archive, wanted)
    with Store.open(tmp_path / "other") as other:
        [loaded] = load(other, data)
        assert loaded.reference == "localhost/x:1"
        assert loaded.image.descriptor.digest == IMAGE.descriptor.digest
        other.resolve("x:1")
        again = saved(other, save_oci_archive, Wanted(X, loaded.image))
    assert again == data == saved(store, save_oci_archive, wanted)


def test_a_saved_docker_archive_has_the_same_id(store, wanted, tmp_path):
    data = saved(store, save_docker_archive, wanted)
    [manifest] = json.loads(files_of(data)["manifest.json"])
    assert manifest["RepoTags"] == ["localhost/x:1"]
    assert [files_of(data)[name] for name in manifest["Layers"]] == list(IMAGE.tars)
    with Store.open(tmp_path / "other") as other:
        assert load(other, data)[0].image.id == IMAGE.config.digest


def test_several_images_are_saved_with_what_they_share_once(store, wanted):
    base = store.add(Reference.parse("debian:12"), put(store, make_image(BASE)))
    files = files_of(saved(store, save_docker_archive, wanted, Wanted(None, base)))
    assert sum(name.endswith(".tar") for name in files) == 2
    files = files_of(saved(store, save_oci_archive, wanted, Wanted(None, base)))
    assert len(json.loads(files["index.json"])["manifests"]) == 2


def test_a_saved_directory_is_an_image_layout(store, wanted, tmp_path):
    target = tmp_path / "layout"
    target.mkdir()
    save_oci_directory(store, [wanted], target, unwatched)
    for digest, data in IMAGE.blobs.items():
        assert (target / "blobs" / digest.replace(":", "/")).read_bytes() == data
    with Store.open(tmp_path / "other") as other:
        assert references(load_directory(other, target, (), unwatched)) == ["localhost/x:1"]


@pytest.mark.parametrize("save", [save_oci_archive, save_docker_archive])
def test_a_damaged_layer_is_not_saved(store, wanted, save):
    blob = wanted.image.stack[0].descriptor.digest
    path = store.blobs.path(blob)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises((Corrupt, Malformed)):
        saved(store, save, wanted)
