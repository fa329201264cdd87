import bz2
import gzip
import io
import json
import lzma
import os
import tarfile

import pytest
import zstandard

from tests.support.images import BASE, CHANGES, make_image, merged, put, tar_of
from unionfuse.image.digest import digest_of
from unionfuse.image.errors import Malformed, NotFound
from unionfuse.image.making.config import Changes
from unionfuse.image.making.image import Recipe, commit, squash
from unionfuse.image.making.rootfs import export, import_directory, import_tar
from unionfuse.image.manifest import Platform
from unionfuse.image.reference import Reference
from unionfuse.image.watch import unwatched

X, Y = Reference.parse("localhost/x:1"), Reference.parse("localhost/y:1")


@pytest.fixture
def base(store):
    return store.add(X, put(store, make_image(BASE)))


@pytest.fixture
def upper(tmp_path):
    path = tmp_path / "upper"
    (path / "etc").mkdir(parents=True)
    (path / "etc/name").write_text("changed\n")
    (path / ".wh.gone").touch()
    return path


def config_of(image):
    return json.loads(image.config_data)


def test_a_commit_is_the_base_under_what_the_upper_changes(store, base, upper):
    made = commit(store, upper, base, Recipe(Y))
    assert merged(made.image.layers) == {"etc/name": b"changed\n"}
    assert made.image.manifest.layers[:1] == base.manifest.layers
    assert store.resolve("localhost/y:1").id == made.image.id
    assert made.entries == 3


def test_a_commit_has_its_step_in_the_history(store, base, upper, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    changes = Changes(author="me", comment="why", created_by="by hand")
    config = config_of(commit(store, upper, base, Recipe(Y, changes)).image)
    assert config["history"] == [
        {"created_by": "step 0"},
        {
            "created": "2023-11-14T22:13:20Z",
            "created_by": "by hand",
            "author": "me",
            "comment": "why",
        },
    ]
    assert config["created"] == "2023-11-14T22:13:20Z"


def test_the_same_upper_and_time_are_the_same_image(store, base, upper, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first = commit(store, upper, base, Recipe(Y)).image
    os.utime(upper / "etc/name")  # later than the time that is given
    assert commit(store, upper, base, Recipe(Y)).image.descriptor == first.descriptor


def test_what_changes_nothing_makes_no_layer(store, base, tmp_path):
    (tmp_path / "empty").mkdir()
    made = commit(store, tmp_path / "empty", base, Recipe(Y, Changes(cmd=("sh",))))
    assert made.image.manifest.layers == base.manifest.layers
    assert config_of(made.image)["history"][-1]["empty_layer"]


def test_an_upper_on_nothing_is_an_image_too(store, upper):
    made = commit(store, upper, None, Recipe(Y, platform=Platform("arm64", "linux")))
    assert len(made.image.stack) == 1
    assert made.image.config.architecture == "arm64"


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        (Changes(env={"PATH": "/x", "A": "=b"}), {"Env": ["PATH=/x", "A==b"], "Cmd": ["sh"]}),
        (Changes(cmd=("a", "b")), {"Env": ["PATH=/bin"], "Cmd": ["a", "b"]}),
        (Changes(entrypoint=("e",)), {"Env": ["PATH=/bin"], "Entrypoint": ["e"]}),
        (
            Changes(entrypoint=("e",), cmd=("c",)),
            {"Env": ["PATH=/bin"], "Entrypoint": ["e"], "Cmd": ["c"]},
        ),
        (
            Changes(workdir="/w", user="me", labels={"k": "v"}),
            {
                "Env": ["PATH=/bin"],
                "Cmd": ["sh"],
                "WorkingDir": "/w",
                "User": "me",
                "Labels": {"k": "v"},
            },
        ),
    ],
)
def test_the_config_is_that_of_the_base_with_the_changes(store, base, upper, changes, config):
    made = commit(store, upper, base, Recipe(Y, changes))
    assert config_of(made.image)["config"] == config


def test_a_time_that_is_none_is_told(store, base, upper, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(Malformed, match="yesterday"):
        commit(store, upper, base, Recipe(Y))


def test_a_squashed_image_shows_the_same_in_one_layer(store):
    image = store.add(X, put(store, make_image(BASE, CHANGES)))
    made = squash(store, image, Recipe(Y))
    assert len(made.image.stack) == 1
    assert merged(made.image.layers) == merged(image.layers)
    assert len(config_of(made.image)["history"]) == 1
    assert config_of(made.image)["config"] == config_of(image)["config"]


PACKED = {
    "plain": lambda tar: tar,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("how", PACKED)
def test_a_tar_is_imported_as_it_is(store, how):
    tar = tar_of(BASE)
    image = import_tar(store, io.BytesIO(PACKED[how](tar)), Recipe(X))
    assert [layer.diff_id for layer in image.stack] == [digest_of(tar)]
    assert merged(image.layers) == {"etc/name": b"base\n", "gone": b"not for long\n"}


@pytest.mark.parametrize("how", [how for how in PACKED if how != "plain"])
def test_a_tar_that_is_cut_is_not_imported(store, how):
    data = PACKED[how](tar_of(BASE))
    with pytest.raises(Malformed):
        import_tar(store, io.BytesIO(data[:-3]), Recipe(X))
    assert store.database.names() == []


@pytest.mark.parametrize("how", PACKED)
@pytest.mark.parametrize("entries", [0, len(BASE)])
def test_a_tar_without_its_end_is_not_imported(store, how, entries):
    tar = tar_of(dict(list(BASE.items())[:entries]))
    blocks = -(-len(tar.rstrip(b"\0")) // 512)
    with pytest.raises(Malformed, match="its end"):
        import_tar(store, io.BytesIO(PACKED[how](tar[: blocks * 512])), Recipe(X))
    assert store.database.names() == []


def test_a_directory_is_imported(store, tmp_path):
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    (tmp_path / "rootfs/etc/name").write_text("here\n")
    (tmp_path / "rootfs").chmod(0o711)
    image = import_directory(store, tmp_path / "rootfs", Recipe(X))
    assert merged(image.layers) == {"etc/name": b"here\n"}
    assert image.layers[0].stat().st_mode & 0o777 == 0o711


def test_an_export_is_what_the_image_shows_under_an_upper(store, base, upper):
    out = io.BytesIO()
    assert export(store, base, upper, out.write, unwatched) == ()
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        names = tar.getnames()
        content = tar.extractfile("etc/name").read()
    assert (names, content) == ([".", "etc", "etc/name"], b"changed\n")


def test_an_upper_of_an_image_whose_layers_are_gone_is_told(store, base, upper):
    for path in store.places.layers.iterdir():
        path.rename(path.with_name("gone"))
    store.blobs.path(base.stack[0].descriptor.digest).unlink()
    with pytest.raises(NotFound, match="no blob"):
        commit(store, upper, base, Recipe(Y))
