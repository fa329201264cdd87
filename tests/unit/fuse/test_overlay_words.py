"""The layers, in the words of overlayfs."""

from __future__ import annotations

import pytest

from unionfuse.fuse.errors import MountError
from unionfuse.fuse.overlay_words import LayerWords, take_layers


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("lowerdir=/a:/b", LayerWords((b"/a", b"/b"))),
        ("lowerdir=/a,upperdir=/u,workdir=/w", LayerWords((b"/a",), b"/u", b"/w")),
        (r"lowerdir=/a\:b:/c\,d,upperdir=/u\:\,\\", LayerWords((b"/a:b", b"/c,d"), b"/u:,\\")),
        (r"lowerdir+=/a:b,lowerdir+=/c", LayerWords((b"/a:b", b"/c"))),
        ("lowerdir=/a,workdir=/w", LayerWords((b"/a",))),  # overlayfs: useless, ignored
        ("lowerdir=/a,lowerdir=/b", LayerWords((b"/b",))),
        ("lowerdir=/\udcff", LayerWords((b"/\xff",))),
    ],
)
def test_layers_are_taken(text: str, layers: LayerWords) -> None:
    assert take_layers((text,)) == (layers, ())


def test_other_words_are_left_in_order() -> None:
    found, others = take_layers(("noatime,lowerdir=/a,,ro", r"fsname=a\,b,upperdir=/u"))
    assert found == LayerWords((b"/a",), b"/u")
    assert others == ("noatime", "ro", "fsname=a,b")


def test_without_such_words_there_are_no_layers() -> None:
    assert take_layers(("ro", "")) == (None, ("ro",))


@pytest.mark.parametrize("text", ["upperdir=/u", "workdir=/w"])
def test_what_does_not_belong_together_is_refused(text: str) -> None:
    with pytest.raises(MountError):
        take_layers((text,))
