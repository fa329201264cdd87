"""The service over gRPC: what containerd's own suite for snapshotters asks, and more.

The suite is core/snapshots/testsuite; what it mounts is in integration/test_snapshotter.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.support.snapshots import directories
from unionfuse.snapshots.messages import Info, Mount
from unionfuse.snapshots.record import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.snapshots import Client

ROOT_LABEL = "containerd.io/gc.root"
BASE = {
    "c1": (Kind.COMMITTED, ""),
    "c2": (Kind.COMMITTED, "c1"),
    "a1": (Kind.ACTIVE, "c2"),
    "a2": (Kind.ACTIVE, ""),
    "v1": (Kind.VIEW, "c2"),
    "v2": (Kind.VIEW, ""),
}


def make_base(client: Client) -> None:
    client.prepare("c1-a")
    client.commit("c1", "c1-a")
    client.prepare("c2-a", "c1")
    client.commit("c2", "c2-a")
    client.prepare("a1", "c2")
    client.prepare("a2")
    client.view("v1", "c2")
    client.view("v2")


def committed(client: Client, name: str, parent: str = "") -> str:
    client.prepare(f"{name}-a", parent)
    client.commit(name, f"{name}-a")
    return name


def refused(code: str):
    return pytest.raises(grpc.RpcError, check=lambda err: err.code().name == code)


def fs(root: Path, mounts: tuple[Mount, ...]) -> Path:
    """Return where the files of what is mounted go."""
    (mount,) = mounts
    if mount.type == "bind":
        return root.__class__(mount.source)
    (upper,) = [word for word in mount.options if word.startswith("upperdir=")]
    return root.__class__(upper.removeprefix("upperdir="))


class TestLife:
    def test_a_snapshot_is_what_it_was_made_as(self, client):
        before = time.time()
        make_base(client)
        for name, (kind, parent) in BASE.items():
            info = client.stat(name)
            assert (info.name, info.kind, info.parent) == (name, kind, parent)
            assert info.created_at == info.updated_at
            assert before <= info.created_at.seconds + info.created_at.nanos / 1e9 <= time.time()

    def test_a_committed_key_is_gone(self, client):
        client.prepare("key")
        client.commit("name", "key")
        with refused("NOT_FOUND"):
            client.stat("key")

    def test_parents_have_parents(self, client):
        committed(client, "a")
        committed(client, "b", "a")
        assert client.stat(client.stat("b").parent).parent == ""

    @pytest.mark.parametrize("first", ["prepare", "view"])
    @pytest.mark.parametrize("second", ["prepare", "view"])
    def test_a_key_is_used_once(self, client, first, second):
        committed(client, "base")
        getattr(client, first)("key", "base")
        with refused("ALREADY_EXISTS"):
            getattr(client, second)("key", "base")

    def test_a_parent_has_to_be_there(self, client):
        with refused("NOT_FOUND"):
            client.prepare("key", "none")

    def test_a_parent_has_to_be_committed(self, client):
        client.prepare("active")
        with refused("INVALID_ARGUMENT"):
            client.prepare("key", "active")

    def test_a_key_has_to_be_given(self, client):
        with refused("INVALID_ARGUMENT"):
            client.prepare("")

    def test_only_what_is_active_is_committed(self, client):
        make_base(client)
        for key in ("v1", "v2", "c1"):
            with refused("FAILED_PRECONDITION"):
                client.commit("new", key)
        with refused("NOT_FOUND"):
            client.commit("new", "none")

    def test_a_name_is_committed_once(self, client):
        make_base(client)
        with refused("ALREADY_EXISTS"):
            client.commit("c1", "a2")
        assert client.stat("a2").kind == Kind.ACTIVE

    def test_labels_of_a_key_do_not_go_over_to_the_committed(self, client):
        client.prepare("key", old="1")
        client.commit("name", "key", new="2")
        assert client.stat("name").labels == {"new": "2"}

    def test_names_are_of_any_kind(self, client):
        for name in ("sha256:0123", "default/7/extract-1 sha256:ab", "ü'\";--"):
            committed(client, name)
            assert client.stat(name).name == name


class TestRemove:
    def test_a_name_may_be_used_again(self, client):
        committed(client, "committed-1")
        client.prepare("reuse-1", "committed-1")
        client.remove("reuse-1")
        client.view("reuse-1", "committed-1")
        client.remove("reuse-1")
        client.prepare("reuse-1")
        client.remove("committed-1")
        client.commit("committed-1", "reuse-1")

    def test_a_parent_stays(self, client):
        committed(client, "base")
        committed(client, "middle", "base")
        client.prepare("top", "middle")
        for parent in ("base", "middle"):
            with refused("FAILED_PRECONDITION") as caught:
                client.remove(parent)
            assert "remove" in caught.value.details()
        for name in ("top", "middle", "base"):
            client.remove(name)
        assert client.list() == []

    def test_what_is_not_there_is_not_found(self, client):
        with refused("NOT_FOUND"):
            client.remove("none")

    def test_files_go_with_the_cleanup(self, client, root):
        client.prepare("key")
        (path,) = (root / "snapshots").iterdir()
        (path / "fs" / "file").write_text("x")
        client.remove("key")
        assert directories(root) == {path.name}
        client.cleanup()
        assert directories(root) == set()

    def test_a_cleanup_leaves_alone_what_is_in_use(self, client, root):
        make_base(client)
        before = directories(root)
        client.cleanup()
        assert directories(root) == before
        assert len(before) == len(BASE)

    def test_a_cleanup_takes_what_nobody_knows(self, client, root):
        for name in ("77/fs/deep", "new-1/fs", "left-1/fs", "left-2"):
            (root / "snapshots" / name).mkdir(parents=True)
        client.cleanup()
        assert directories(root) == set()


class TestUpdate:
    @pytest.mark.parametrize("name", BASE)
    def test_labels_change_and_nothing_else(self, client, name):
        make_base(client)
        before = client.stat(name)
        labels = {"l1": "v1", "l2": "v2", "l3": "v3", ROOT_LABEL: "now"}
        new = client.update(Info(name=name, parent="none", labels=labels))
        assert (new.parent, new.kind) == (before.parent, before.kind)
        assert new.labels == labels
        assert new.created_at == before.created_at
        assert new.updated_at != before.updated_at

        new = client.update(
            Info(name=name, labels={"l1": "updated", "l4": "v4"}), "labels.l1", "labels.l2"
        )
        assert new.labels == {"l1": "updated", "l3": "v3", ROOT_LABEL: "now"}
        new = client.update(Info(name=name, labels={"l4": "v4"}), "labels")
        assert new.labels == {"l4": "v4"}
        with refused("INVALID_ARGUMENT"):
            client.update(Info(name=name, parent="none"), "parent")
        assert client.stat(name) == new

    def test_what_is_not_there_is_not_found(self, client):
        with refused("NOT_FOUND"):
            client.update(Info(name="none"))

    def test_a_label_has_a_bound(self, client):
        client.prepare("key", a="x" * 4000)
        with refused("INVALID_ARGUMENT"):
            client.prepare("other", a="x" * 4096)
        with refused("NOT_FOUND"):
            client.stat("other")


class TestList:
    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ((), "a-np p a v p-wl a-wl v-wl a-np-wl"),
            ((f'labels."{ROOT_LABEL}"==walk',), "a-np p a v p-wl a-wl v-wl a-np-wl"),
            ((f'kind==active,labels."{ROOT_LABEL}"==walk',), "a-np a a-wl a-np-wl"),
            (("kind==view",), "v v-wl"),
            (("kind==committed",), "p p-wl"),
            (("name==p", "name==a-np-wl"), "p a-np-wl"),
            (("name==a-wl,labels.l",), "a-wl"),
            (("parent==p",), "a v"),
            (('parent!=""',), "a v a-wl v-wl"),
            (("labels.l",), "p-wl a-wl v-wl a-np-wl"),
            (("labels.l==2",), "a-wl a-np-wl"),
        ],
    )
    def test_filters(self, client, filters, found):
        root = {ROOT_LABEL: "walk"}
        client.prepare("a-np", **root)
        client.prepare("p-tmp", **root)
        client.commit("p", "p-tmp", **root)
        client.prepare("a", "p", **root)
        client.view("v", "p", **root)
        client.prepare("p-wl-tmp", **root)
        client.commit("p-wl", "p-wl-tmp", l="1", **root)
        client.prepare("a-wl", "p-wl", l="2", **root)
        client.view("v-wl", "p-wl", l="3", **root)
        client.prepare("a-np-wl", l="2", **root)
        assert {info.name for info in client.list(*filters)} == set(found.split())

    def test_what_is_listed_is_what_stat_tells(self, client):
        make_base(client)
        assert client.list() == [client.stat(info.name) for info in client.list()]

    def test_many_come_in_several_messages(self, client):
        for number in range(250):
            client.prepare(f"key-{number}")
        assert len({info.name for info in client.list()}) == 250

    def test_a_filter_without_sense_is_refused(self, client):
        with refused("INVALID_ARGUMENT"):
            client.list("name=x")


class TestMounts:
    def test_a_first_layer_is_a_bind_mount(self, client, root):
        (mount,) = client.prepare("key")
        assert mount == Mount("bind", f"{root}/snapshots/1/fs", "", ("rw", "rbind"))
        assert client.mounts("key") == (mount,)

    def test_its_root_is_as_an_empty_root_is(self, client):
        (mount,) = client.prepare("key")
        assert os.stat(mount.source).st_mode & 0o7777 == 0o755

    def test_a_view_of_one_layer_is_a_bind_mount_of_it(self, client, root):
        committed(client, "base")
        (mount,) = client.view("key", "base")
        assert mount == Mount("bind", f"{root}/snapshots/1/fs", "", ("ro", "rbind"))

    def test_a_container_is_a_union(self, client, root):
        committed(client, "c1")
        committed(client, "c2", "c1")
        (mount,) = client.prepare("key", "c2")
        base = f"{root}/snapshots"
        assert (mount.type, mount.source) == ("fuse3.unionfuse-overlay", "overlay")
        assert mount.options == (
            "redirect_dir=on", "metacopy=on", f"workdir={base}/3/work", f"upperdir={base}/3/fs",
            f"lowerdir={base}/2/fs:{base}/1/fs",
        )  # fmt: skip
        assert client.mounts("key") == (mount,)

    def test_a_view_of_several_layers_is_a_union_to_be_read(self, client, root):
        committed(client, "c1")
        committed(client, "c2", "c1")
        (mount,) = client.view("key", "c2")
        base = f"{root}/snapshots"
        assert mount.options == ("ro", f"lowerdir={base}/2/fs:{base}/1/fs")

    def test_what_is_committed_is_not_mounted(self, client):
        committed(client, "base")
        with refused("FAILED_PRECONDITION"):
            client.mounts("base")
        with refused("NOT_FOUND"):
            client.mounts("none")

    @pytest.mark.root
    def test_the_root_of_a_union_is_that_of_its_parent(self, client, root):
        path = fs(root, client.prepare("a"))
        os.chown(path, 5, 6)
        path.chmod(0o2555)
        client.commit("base", "a")
        status = fs(root, client.prepare("key", "base")).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (5, 6, 0o2555)

    def test_ids_are_mapped_as_labels_say(self, client):
        committed(client, "base")
        labels = {
            "containerd.io/snapshot/uidmapping": "0:100000:1000,1000:5000:1",
            "containerd.io/snapshot/gidmapping": "0:200000:1000",
        }
        (mount,) = client.prepare("key", "base", **labels)
        assert {"uidmapping=0:100000:1000:1000:5000:1", "gidmapping=0:200000:1000"} < set(
            mount.options
        )
        (view,) = client.view("view", "base", **labels)  # what a bind mount could not do
        assert "gidmapping=0:200000:1000" in view.options

    @pytest.mark.root
    def test_a_mapped_first_layer_is_its_roots(self, client, root):
        labels = {
            "containerd.io/snapshot/uidmapping": "1:1:5,0:100000:1",
            "containerd.io/snapshot/gidmapping": "0:200000:1000",
        }
        status = fs(root, client.prepare("key", **labels)).stat()
        assert (status.st_uid, status.st_gid) == (100000, 200000)

    @pytest.mark.parametrize("value", ["", "0:1", "a:b:c", "0:1:2,", "-1:1:2", "5:5:5"])
    def test_a_map_without_sense_is_refused(self, client, root, value):
        labels = {"containerd.io/snapshot/uidmapping": value or "x"}
        with refused("INVALID_ARGUMENT"):
            client.prepare("key", **labels)
        assert directories(root) == set()


class TestUsage:
    def test_an_active_one_is_looked_at(self, client, root):
        path = fs(root, client.prepare("key"))
        before = client.usage("key")
        assert before.inodes == 1
        (path / "file").write_bytes(b"x" * 100_000)
        os.link(path / "file", path / "other")
        (path / "dir").mkdir()
        after = client.usage("key")
        assert after.inodes == 3
        assert 100_000 <= after.size - before.size <= 120_000

    def test_a_committed_one_is_known(self, client, root):
        path = fs(root, client.prepare("key"))
        (path / "file").write_bytes(b"x" * 100_000)
        usage = client.usage("key")
        client.commit("name", "key")
        (path / "file").unlink()
        assert client.usage("name") == usage

    def test_its_parents_do_not_count(self, client, root):
        path = fs(root, client.prepare("a"))
        (path / "file").write_bytes(b"x" * 100_000)
        client.commit("base", "a")
        client.prepare("key", "base")
        assert client.usage("key").inodes == 1
        client.view("view", "base")
        assert client.usage("view").inodes == 0


def test_a_request_that_is_no_message_is_an_error_and_no_end(client):
    call = client._channel.unary_unary(
        "/containerd.services.snapshots.v1.Snapshots/Stat", lambda data: data, lambda data: data
    )
    with pytest.raises(grpc.RpcError):
        call(b"\xff", timeout=10)
    assert client.list() == []
