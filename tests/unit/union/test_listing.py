"""The merged names of a directory, and offsets that stay good."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from unionfuse.union.fs import ROOT_NODEID
from unionfuse.union.listing import Listing, kind_of

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
        listing.add(b"%d" % number, kind_of(0o100000, True, False))
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
        listing.add(b"%d" % number, kind_of(0o100000, True, False))
    cookie = 0
    while chunk := [d for d, _ in zip(listing.after(cookie), range(1000), strict=False)]:
        cookie = chunk[-1].cookie
        for dirent in chunk:
            listing.remove(dirent.name)
    assert len(listing) == 0
    assert time.monotonic() - started < 10


def filled(*names: bytes) -> Listing:
    listing = Listing()
    for name in names:
        listing.add(name, kind_of(0o100000, True, False))
    return listing


def names_of(listing: Listing, cookie: int = 0) -> list[bytes]:
    return [dirent.name for dirent in listing.after(cookie)]


NUMBERS = [b"%d" % number for number in range(1000)]


def test_cookies_stay_good_when_most_names_have_gone() -> None:
    listing = filled(*NUMBERS)
    cookies = {dirent.name: dirent.cookie for dirent in listing.after(0)}
    for name in NUMBERS[:990]:
        listing.remove(name)
    for position, name in enumerate(NUMBERS[990:], 990):
        assert names_of(listing, cookies[name]) == NUMBERS[position + 1 :]
    assert names_of(listing, cookies[b"500"]) == NUMBERS[990:]
    assert {d.name: d.cookie for d in listing.after(0)}.items() <= cookies.items()


def test_no_cookie_is_given_out_again_when_the_last_names_have_gone() -> None:
    listing = filled(*NUMBERS)
    last = listing.last_cookie()
    for name in NUMBERS:
        listing.remove(name)
    assert listing.last_cookie() == last
    listing.add(b"new", kind_of(0o100000, True, False))
    assert [dirent.cookie for dirent in listing.after(last)] == [last + 1]


@pytest.mark.parametrize("n_removed", [1, 990])
def test_a_name_that_comes_back_is_listed_once_and_last(n_removed: int) -> None:
    listing = filled(*NUMBERS)
    listing.last_cookie()
    for name in NUMBERS[:n_removed]:
        listing.remove(name)
    listing.add(b"0", kind_of(0o100000, True, False))
    assert names_of(listing) == [*NUMBERS[n_removed:], b"0"]


def test_a_listing_goes_on_where_it_was_when_names_before_it_go() -> None:
    listing = filled(*NUMBERS)
    seen = []
    for dirent in listing.after(0):
        seen.append(dirent.name)
        if dirent.name == b"900":
            for name in NUMBERS[:900]:
                listing.remove(name)
    assert seen == NUMBERS


def test_names_that_come_and_go_leave_nothing_behind() -> None:
    listing = filled(b"stays")
    listing.last_cookie()
    for name in NUMBERS * 10:
        listing.add(name, kind_of(0o100000, True, False))
        listing.remove(name)
    assert listing._order is not None
    assert len(listing._order) < 100
    assert len(listing._changed) < 100
    assert names_of(listing) == [b"stays"]


def test_names_of_a_kind_share_one_object() -> None:
    assert kind_of(0o100000, False, True, (3,)) is kind_of(0o100000, False, True, (3,))
