import pytest

from tests.support.images import BASE, CHANGES, make_image, put
from unionfuse.image.errors import StoreError
from unionfuse.image.reference import Reference
from unionfuse.image.store.collect import collect
from unionfuse.image.store.store import Store
from unionfuse.image.store.verify import Verification, take_out
from unionfuse.image.watch import unwatched

X = Reference.parse("localhost/x:1")


@pytest.fixture
def image(store):
    return store.add(X, put(store, make_image(BASE, CHANGES)))


def problems(store):
    return [
        (problem.kind, problem.what, problem.names)
        for problem in Verification(store, unwatched).problems()
    ]


def test_what_is_whole_has_no_problems(store, image):
    verification = Verification(store, unwatched)
    assert list(verification.problems()) == []
    assert (verification.blobs, verification.layers) == (4, 2)


def test_a_blob_that_was_changed_is_told_with_who_has_it(store, image):
    blob = image.stack[0].descriptor.digest
    store.blobs.path(blob).write_bytes(b"other")
    assert problems(store) == [("blob", blob, ("localhost/x:1",))]


def test_a_file_of_a_layer_that_was_changed_is_told(store, image):
    (image.layers[1] / "etc/name").write_bytes(b"BASE\n")
    (image.layers[1] / "extra").touch()
    [problem] = Verification(store, unwatched).problems()
    assert (problem.kind, problem.names) == ("layer", ("localhost/x:1",))
    assert "/etc/name: content" in problem.text
    assert "/extra: extra" in problem.text


def test_a_blob_that_is_missing_is_told(store, image):
    store.blobs.remove(image.stack[1].descriptor.digest)
    assert problems(store) == [("name", "localhost/x:1", ("localhost/x:1",))]


def remove_all(root):
    with Store.open(root) as other:
        for name in other.database.names():
            other.remove(name.reference)
        collect(other)


@pytest.mark.parametrize("moment", ["names are known", "blobs are looked at"])
def test_what_is_removed_meanwhile_is_no_problem(store, image, tmp_path, monkeypatch, moment):
    store.forget_uses()
    really_use = store.use

    def use(what):
        remove_all(tmp_path / "store")
        really_use(what)

    def watch(what, *_):
        if what == "blobs":
            remove_all(tmp_path / "store")

    if moment == "names are known":
        monkeypatch.setattr(store, "use", use)
        watch = unwatched
    assert list(Verification(store, watch).problems()) == []


def test_a_config_that_is_damaged_is_told_as_name_and_blob(store, image):
    store.blobs.path(image.id).write_bytes(b"{}")
    assert [kind for kind, _, _ in problems(store)] == ["name", "blob"]


def test_a_blob_that_nobody_has_may_be_damaged_too(store, image):
    blob = store.blobs.put(b"of nobody")
    store.blobs.path(blob).write_bytes(b"OF NOBODY")
    [problem] = Verification(store, unwatched).problems()
    assert (problem.what, problem.names) == (blob, ())
    assert "gc` removes it" in problem.mend


def test_what_was_taken_out_comes_again_out_of_its_blob(store, image):
    (image.layers[1] / "etc/name").write_bytes(b"BASE\n")
    [problem] = Verification(store, unwatched).problems()
    store.forget_uses()
    take_out(store, problem)
    store.complete(image.root)
    assert (image.layers[1] / "etc/name").read_bytes() == b"base\n"
    assert problems(store) == []


def test_a_layer_that_is_mounted_is_not_taken_out(store, image, tmp_path):
    (image.layers[1] / "etc/name").write_bytes(b"BASE\n")
    [problem] = Verification(store, unwatched).problems()
    store.forget_uses()
    mounted = pytest.raises(StoreError, match="unmount")
    with Store.open(tmp_path / "store") as other, other.hold(image), mounted:
        take_out(store, problem)
