import fcntl
import os
import subprocess
import sys

import pytest

from tests.support.images import BASE, CHANGES, make_image, put
from unionfuse.image.errors import NotFound, StoreError
from unionfuse.image.reference import Reference
from unionfuse.image.store import lease
from unionfuse.image.store.collect import collect
from unionfuse.image.store.store import Store

X, Y = Reference.parse("localhost/x:1"), Reference.parse("localhost/y:1")


@pytest.fixture
def other(store, tmp_path):
    """Another command in the same store, which uses nothing."""
    with Store.open(tmp_path / "store") as opened:
        yield opened


def things(store):
    return sorted([*store.blobs, *os.listdir(store.places.layers)])


def test_what_has_a_name_is_kept(store, other):
    store.add(X, put(store, make_image(BASE, CHANGES)))
    store.forget_uses()
    before = things(store)
    assert collect(other) == ([], [], 0)
    assert things(store) == before


def test_what_has_no_name_any_more_goes_but_for_what_others_share(store, other):
    base = make_image(BASE)
    store.add(X, put(store, base))
    store.forget_uses()
    before = things(store)
    store.add(Y, put(store, make_image(BASE, CHANGES)))
    store.remove("localhost/y:1")
    store.forget_uses()
    collected = collect(other)
    assert (len(collected.blobs), len(collected.layers)) == (3, 1)
    assert collected.size > 0
    assert things(store) == before
    assert set(store.database.layers()) == set(os.listdir(store.places.layers))


def test_a_dry_run_removes_nothing(store, other):
    put(store, make_image(BASE))
    store.forget_uses()
    before = things(store)
    assert sorted(collect(other, dry_run=True).blobs) == before
    assert things(store) == before


def test_what_a_command_has_put_there_is_kept_as_long_as_it_runs(store, other):
    put(store, make_image(BASE))
    before = things(store)
    collect(other)
    assert things(store) == before
    store.forget_uses()
    collect(other)
    assert things(store) == []


def test_what_a_command_has_found_there_is_kept_as_long_as_it_runs(store, other):
    digest = store.blobs.put(b"blob")
    store.forget_uses()
    assert digest in store.blobs
    collect(other)
    assert digest in store.blobs


def test_layers_that_a_command_unpacks_are_kept(store, other):
    image = store.complete(put(store, make_image(BASE, CHANGES)))
    collect(other)
    assert [path.exists() for path in image.layers] == [True, True]


def test_an_image_that_is_held_is_kept_without_a_name(store, other):
    image = store.add(X, put(store, make_image(BASE, CHANGES)))
    with store.hold(image):
        store.remove("x:1")
        store.forget_uses()
        collect(other)
        assert [path.exists() for path in image.layers] == [True, True]
    collect(other)
    assert things(store) == []


def test_a_process_that_inherits_a_hold_keeps_it(store, other):
    image = store.add(X, put(store, make_image(BASE)))
    held = store.hold(image)
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[held.fd]) as process:
        held.close()
        store.remove("x:1")
        store.forget_uses()
        collect(other)
        assert image.layers[0].exists()
        process.communicate(b"\n", timeout=30)
    collect(other)
    assert things(store) == []


def test_an_image_that_was_removed_can_not_be_held(store, other):
    image = store.add(X, put(store, make_image(BASE)))
    store.remove("x:1")
    store.forget_uses()
    collect(other)
    with pytest.raises(NotFound, match="removed meanwhile"):
        store.hold(image)


def test_nothing_is_removed_where_a_document_is_damaged(store, other):
    image = make_image(BASE)
    store.add(X, put(store, image))
    other.blobs.put(b"of nobody")
    for each in (store, other):
        each.forget_uses()
    store.blobs.path(image.descriptor.digest).write_bytes(b"{}")
    before = things(store)
    with pytest.raises(StoreError, match="damaged; nothing is removed"):
        collect(other)
    assert things(store) == before


def test_what_killed_commands_have_left_is_swept(store, other, tmp_path):
    tmp = tmp_path / "store/tmp"
    for name in ("lease-dead", "unpack-layer/fs", "dead-x"):
        (tmp / name).mkdir(parents=True)
    (tmp / "new-x").write_bytes(b"half")
    (tmp / "partial-x").write_bytes(b"half")
    (tmp / "partial-y").write_bytes(b"half")
    with open(tmp / "partial-y", "rb") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        collect(other, partials=False)
        assert sorted(os.listdir(tmp)) == ["partial-x", "partial-y"]
        assert collect(other).size == 4
        assert os.listdir(tmp) == ["partial-y"]


def test_a_lease_is_gone_with_its_owner(store, tmp_path):
    tmp, lock = tmp_path / "store/tmp", tmp_path / "store/lock"
    with lease.Lease(tmp, lock) as taken:
        taken.touch(lease.Use(lease.BLOB, "sha256-1"))
        assert lease.live_uses(tmp) == {lease.Use("blob", "sha256-1")}
    assert os.listdir(tmp) == []
