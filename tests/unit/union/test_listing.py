"""The merged names of a directory, and offsets that stay good."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from unionfuse.union.fs import ROOT_NODEID
from unionfuse.union.listing import Dirent, Listing

if TYPE_CHECKING:
    from tests.unit.conftest import Stand


def fill(stand: Stand, layer: str, *names: str) -> None:
    root = {"upper": stand.upper, "top": stand.top, "bottom": stand.bottom}[layer]
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_text(f"{layer} {path.name}")


def test_the_names_of_all_layers_are_shown_once(union: Stand) -> None:
    fill(union, "upper", "u", "both")
    fill(union, "top", "t", "both")
    fill(union, "bottom", "b", "both")
    assert sorted(union.d.readdir(b"")) == [b"b", b"both", b"t", b"u"]


def test_the_topmost_of_a_name_is_seen(union: Stand) -> None:
    fill(union, "top", "both")
    fill(union, "bottom", "both")
    assert union.d.read(b"both") == b"top both"


def test_the_names_of_the_upper_come_first_then_those_of_the_topmost_lower(union: Stand) -> None:
    fill(union, "bottom", "b")
    fill(union, "top", "t")
    fill(union, "upper", "u")
    assert union.d.readdir(b"") == [b"u", b"t", b"b"]


def test_directories_are_merged_all_the_way_down(union: Stand) -> None:
    fill(union, "upper", "dir/sub/u")
    fill(union, "top", "dir/sub/t")
    fill(union, "bottom", "dir/sub/b")
    assert union.d.listdir(b"dir/sub") == [b"b", b"t", b"u"]


def test_a_file_over_a_directory_hides_it(union: Stand) -> None:
    fill(union, "top", "name")
    fill(union, "bottom", "name/inside")
    assert union.d.read(b"name") == b"top name"


def test_a_directory_over_a_file_hides_it(union: Stand) -> None:
    fill(union, "top", "name/inside")
    fill(union, "bottom", "name")
    assert union.d.listdir(b"name") == [b"inside"]


def test_a_directory_does_not_reach_through_a_file_below_it(union: Stand) -> None:
    fill(union, "upper", "name/u")
    fill(union, "top", "name")
    fill(union, "bottom", "name/b")
    assert union.d.listdir(b"name") == [b"u"]


@pytest.mark.parametrize("form", ["char", "file"])
def test_a_whiteout_hides_the_layers_below_it(union: Stand, form: str) -> None:
    fill(union, "bottom", "gone", "dir/gone", "stays")
    if form == "char":
        os.mknod(union.top / "gone", 0o020000, 0)
    else:
        (union.top / ".wh.gone").touch()
    assert union.d.listdir(b"") == [b"dir", b"stays"]


def test_a_whiteout_does_not_hide_the_layers_above_it(union: Stand) -> None:
    fill(union, "upper", "name")
    (union.top / ".wh.name").touch()
    fill(union, "bottom", "name")
    assert union.d.read(b"name") == b"upper name"


def test_a_directory_above_a_whiteout_is_not_merged_with_what_that_hides(union: Stand) -> None:
    fill(union, "upper", "dir/u")
    (union.top / ".wh.dir").touch()
    fill(union, "bottom", "dir/b")
    assert union.d.listdir(b"dir") == [b"u"]


def test_a_whiteout_beside_the_name_of_its_layer_hides_the_layers_below(union: Stand) -> None:
    fill(union, "top", "dir/t")
    (union.top / ".wh.dir").touch()
    fill(union, "bottom", "dir/b")
    assert union.d.listdir(b"dir") == [b"t"]


def test_an_opaque_directory_hides_the_layers_below_it(union: Stand) -> None:
    fill(union, "upper", "dir/u")
    fill(union, "top", "dir/t")
    (union.top / "dir/.wh..wh..opq").touch()
    fill(union, "bottom", "dir/b")
    assert union.d.listdir(b"dir") == [b"t", b"u"]


def test_no_marker_is_shown(union: Stand) -> None:
    for name in (".wh..wh..opq", ".wh.gone", ".wh..wh.plnk", ".wh..wh.aufs"):
        (union.upper / name).touch()
    os.mknod(union.upper / "whiteout", 0o020000, 0)
    assert union.d.readdir(b"") == []


def test_a_marker_can_not_be_looked_up(union: Stand) -> None:
    (union.top / ".wh.gone").touch()
    assert not union.d.exists(b".wh.gone")


def test_cookies_grow(union: Stand) -> None:
    fill(union, "bottom", *"abcdef")
    cookies = [dirent.cookie for dirent in union.d.fs.readdir(ROOT_NODEID, 0)]
    assert cookies == sorted(set(cookies))
    assert cookies[0] > 0
    assert cookies[-1] == union.d.fs.last_cookie(ROOT_NODEID)


def test_a_cookie_is_where_to_go_on(union: Stand) -> None:
    fill(union, "bottom", *"abcdef")
    found = list(union.d.fs.readdir(ROOT_NODEID, 0))
    for position, dirent in enumerate(found):
        rest = list(union.d.fs.readdir(ROOT_NODEID, dirent.cookie))
        assert rest == found[position + 1 :]


def test_a_name_that_goes_moves_no_other(union: Stand) -> None:
    fill(union, "bottom", *"abcdef")
    found = list(union.d.fs.readdir(ROOT_NODEID, 0))
    place = found[2].cookie
    union.d.unlink(found[0].name)
    union.d.unlink(found[2].name)
    assert [d.name for d in union.d.fs.readdir(ROOT_NODEID, place)] == [d.name for d in found[3:]]


def test_a_name_that_comes_is_behind_all_others(union: Stand) -> None:
    fill(union, "bottom", *"abc")
    last = union.d.fs.last_cookie(ROOT_NODEID)
    union.d.create(b"new")
    assert [d.name for d in union.d.fs.readdir(ROOT_NODEID, last)] == [b"new"]


def test_every_name_that_stays_is_read_once_while_all_others_go() -> None:
    listing = Listing()
    for number in range(1000):
        listing.add(Dirent(b"%d" % number, 0o100000, in_upper=True, covers=False, lowers=()))
    seen = []
    for dirent in listing.after(0):
        seen.append(dirent.name)
        number = int(dirent.name)
        for other in (number + 1, number + 2):
            if listing.get(b"%d" % other) is not None:
                listing.remove(b"%d" % other)
    assert seen == [b"%d" % number for number in range(0, 1000, 3)]


def test_a_hundred_thousand_names_are_listed_and_removed_in_seconds() -> None:
    started = time.monotonic()
    listing = Listing()
    for number in range(100_000):
        listing.add(Dirent(b"%d" % number, 0o100000, in_upper=True, covers=False, lowers=()))
    cookie = 0
    while chunk := [d for d, _ in zip(listing.after(cookie), range(1000), strict=False)]:
        cookie = chunk[-1].cookie
        for dirent in chunk:
            listing.remove(dirent.name)
    assert len(listing) == 0
    assert time.monotonic() - started < 10
