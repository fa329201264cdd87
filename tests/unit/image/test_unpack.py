import json
import os

import pytest

from tests.support.images import BASE, CHANGES, make_image, merged, put
from tests.support.tars import TarBuilder, xattrs
from unionfuse.image.bundle import runtime_config
from unionfuse.image.errors import Refused
from unionfuse.image.layers.limits import Limits
from unionfuse.image.reference import Reference
from unionfuse.image.unpack import unpack_layers, unpack_rootfs
from unionfuse.image.watch import unwatched

X = Reference.parse("localhost/x:1")
PASSWD: dict[str, bytes | None] = {
    "etc/": None,
    "etc/passwd": b"root:x:0:0::/:/bin/sh\nme:x:5:6::/home/me:/bin/sh\n",
    "etc/group": b"root:x:0:\nthem:x:7:\n",
}


def add(store, *layers, **more):
    return store.add(X, put(store, make_image(*layers, **more)))


def test_layers_are_unpacked_by_their_numbers_the_top_first(store, tmp_path):
    image = add(store, BASE, CHANGES)
    directories = unpack_layers(store, image, tmp_path, unwatched)
    assert [path.name for path in directories] == ["1", "2"]
    assert merged(directories) == {"etc/name": b"changed\n"}


def test_a_rootfs_is_what_the_image_shows(store, tmp_path):
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir()
    unpack_rootfs(store, add(store, BASE, CHANGES), rootfs, unwatched)
    assert merged([rootfs]) == {"etc/name": b"changed\n"}
    assert sorted(os.listdir(rootfs)) == ["etc"]


@pytest.mark.root
def test_what_would_be_a_mark_in_a_layer_is_an_attribute_in_a_rootfs(store, tmp_path, monkeypatch):
    tar = TarBuilder().dir("d", pax_headers=xattrs(trusted__overlay__impure="y")).bytes()
    monkeypatch.setattr("tests.support.images.tar_of", lambda _: tar)
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir()
    unpack_rootfs(store, add(store, {}), rootfs, unwatched)
    assert os.listxattr(rootfs / "d") == ["trusted.overlay.impure"]


def test_a_limit_ends_the_unpacking_of_a_rootfs(store, tmp_path):
    image = add(store, BASE, CHANGES)
    store.limits = Limits(entries=1)
    with pytest.raises(Refused):
        unpack_rootfs(store, image, tmp_path, unwatched)


def config_of(store, rootfs, **config):
    image = add(store, PASSWD, config=config)
    [layer] = image.layers
    return json.loads(runtime_config(image, layer))


def test_a_bundle_runs_what_the_config_says(store, tmp_path):
    config = config_of(
        store, tmp_path, Entrypoint=["e"], Cmd=["c"], Env=["A=b"], WorkingDir="/w", User="me"
    )
    process = config["process"]
    assert (process["args"], process["cwd"]) == (["e", "c"], "/w")
    assert process["env"][0].startswith("PATH=")
    assert process["env"][1:] == ["A=b"]
    assert process["user"] == {"uid": 5, "gid": 6}


@pytest.mark.parametrize(
    ("user", "ids"),
    [("", (0, 0)), ("me:them", (5, 7)), ("5", (5, 6)), ("9", (9, 0)), ("9:8", (9, 8))],
)
def test_users_are_those_of_the_image(store, tmp_path, user, ids):
    found = config_of(store, tmp_path, User=user)["process"]["user"]
    assert (found["uid"], found["gid"]) == ids


def test_a_user_that_is_not_there_is_told(store, tmp_path):
    with pytest.raises(Refused, match="nobody"):
        config_of(store, tmp_path, User="nobody")


def test_no_symlink_of_the_image_leads_out(store, tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("/etc/passwd")
    image = add(store, PASSWD, config={"User": "root"})
    with pytest.raises(Refused):
        runtime_config(image, tmp_path)
