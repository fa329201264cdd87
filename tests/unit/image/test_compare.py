import pytest

from tests.support.images import BASE, CHANGES, make_image, put
from unionfuse.image.compare import differences
from unionfuse.image.reference import Reference

X, Y = Reference.parse("localhost/x:1"), Reference.parse("localhost/y:1")
D = None  # the content of a directory


def directories(store, reference, *layers):
    return store.add(reference, put(store, make_image(*layers))).layer_directories()


def told(found):
    return [f"{kind} {path.decode()}" for kind, path in found]


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        (CHANGES, ["C etc/name", "D gone"]),
        ({"new/": D, "new/file": b""}, ["A new", "A new/file"]),
        ({".wh.etc": b""}, ["D etc"]),
        ({"etc": b"a file now"}, ["C etc", "D etc/name"]),
        ({"etc/": D, "etc/.wh..wh..opq": b"", "etc/other": b""}, ["D etc/name", "A etc/other"]),
        ({"etc/": D, "etc/name": b"base\n"}, []),
    ],
)
def test_the_top_layer_changes_what_is_below_it(store, above, expected):
    found = directories(store, X, BASE, above)
    assert told(differences(found[:-1], found)) == expected


def test_images_of_other_layers_are_compared_by_what_they_show(store):
    whole = {"./": D, "etc/": D, "etc/name": b"changed\n"}
    assert (
        told(differences(directories(store, X, BASE, CHANGES), directories(store, Y, whole))) == []
    )


def test_a_directory_without_an_entry_is_no_change(store):
    found = directories(store, X, BASE, {"etc/new": b""})
    assert told(differences(found[:-1], found)) == ["A etc/new"]
