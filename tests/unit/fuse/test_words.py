"""The words of a mount, parsed."""

from __future__ import annotations

import pytest

from unionfuse.fuse.errors import MountError
from unionfuse.fuse.options import MountOptions, split_layers
from unionfuse.fuse.words import parse_options, parse_words, split_words
from unionfuse.syscalls import mount as sys_mount


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        (b"a", [b"a"]),
        (b"a:b:c", [b"a", b"b", b"c"]),
        (rb"a\:b:c", [b"a:b", b"c"]),
        (rb"a\\:b", [b"a\\", b"b"]),
        (rb"a\\\:b", [b"a\\:b"]),
        (rb"a\b", [rb"a\b"]),
        (b"a\\", [b"a\\"]),
        (b"a::b", [b"a", b"", b"b"]),
        (b"", [b""]),
        (b"\xff:\xfe", [b"\xff", b"\xfe"]),
    ],
)
def test_layers_are_split_at_colons_that_are_not_escaped(text: bytes, layers: list[bytes]) -> None:
    assert split_layers(text) == layers


def test_a_hundred_and_more_layers_are_split() -> None:
    assert len(split_layers(b":".join(b"%d" % number for number in range(500)))) == 500


@pytest.mark.parametrize(
    ("word", "flag"),
    [
        ("ro", sys_mount.MS_RDONLY),
        ("nosuid", sys_mount.MS_NOSUID),
        ("nodev", sys_mount.MS_NODEV),
        ("noexec", sys_mount.MS_NOEXEC),
        ("noatime", sys_mount.MS_NOATIME),
        ("sync", sys_mount.MS_SYNCHRONOUS),
    ],
)
def test_a_word_of_mount_is_a_flag(word: str, flag: int) -> None:
    options = parse_options((word,))
    assert options.flags == flag
    assert options.words == (word,)


@pytest.mark.parametrize(
    ("texts", "flags"),
    [
        (("ro,rw",), 0),
        (("rw,ro",), sys_mount.MS_RDONLY),
        (("ro", "rw"), 0),
        (("nosuid,suid",), 0),
    ],
)
def test_the_later_word_wins(texts: tuple[str, ...], flags: int) -> None:
    assert parse_options(texts).flags == flags


def test_several_options_add_up_and_empty_ones_are_skipped() -> None:
    options = parse_options(("nosuid,,nodev", "", "noatime"))
    assert options.flags == sys_mount.MS_NOSUID | sys_mount.MS_NODEV | sys_mount.MS_NOATIME


@pytest.mark.parametrize("word", ["defaults", "default_permissions"])
def test_what_holds_anyhow_changes_nothing(word: str) -> None:
    assert parse_options((word,)) == MountOptions()


@pytest.mark.parametrize(
    ("text", "volatile"),
    [
        ("", False),
        ("volatile", True),
        ("fsync=volatile", True),
        ("fsync=0", True),
        ("fsync=1", False),
        ("volatile,fsync=auto", False),
        ("fsync=strict", False),
    ],
)
def test_volatile_has_several_names(text: str, volatile: bool) -> None:
    assert parse_options((text,)).volatile == volatile


def test_others_may_use_the_mount_only_if_that_is_said() -> None:
    assert parse_options(()).allow_other is None
    assert parse_options(("allow_other",)).allow_other is True


@pytest.mark.parametrize(("text", "seconds"), [("timeout=0", 0), ("timeout=1.5", 1.5)])
def test_a_timeout_is_a_number_of_seconds(text: str, seconds: float) -> None:
    assert parse_options((text,)).timeout == seconds


def test_the_source_can_be_named() -> None:
    assert parse_options(("fsname=storage",)).fsname == "storage"


@pytest.mark.parametrize(
    "text",
    ["nonsense", "timeout=", "timeout=soon", "timeout=-1", "timeout=nan", "fsync=2", "fsname="],
)
def test_what_makes_no_sense_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(MountError) as caught:
        parse_options((text,))
    assert "\n" not in str(caught.value)
    assert text.partition("=")[2] in str(caught.value)


@pytest.mark.parametrize(("words", "gathers"), [("", None), ("writeback=0", False)])
def test_whether_the_kernel_gathers_writes_can_be_chosen(words: str, gathers: bool) -> None:
    assert parse_options((words,)).writeback is gathers
    assert parse_options((words, "writeback=1")).writeback


def test_whether_it_gathers_is_yes_or_no() -> None:
    with pytest.raises(MountError, match="writeback is to be one of 0, 1: 2"):
        parse_options(("writeback=2",))


def test_words_of_overlayfs_are_known() -> None:
    options = parse_options(("metacopy=off,redirect_dir=follow,index=off,xino=off",))
    chosen = (options.metacopy, options.redirect_dir, options.index, options.xino)
    assert chosen == (False, "follow", False, "off")


@pytest.mark.parametrize(
    "text",
    [
        "metacopy=yes",
        "redirect_dir=",
        "index=1",
        "xino=maybe",
        "metacopy=on,redirect_dir=off",
        "fsync=2",
    ],
)
def test_words_of_overlayfs_with_a_value_that_makes_no_sense_are_refused(text: str) -> None:
    with pytest.raises(MountError):
        parse_options((text,))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b=c", ["a", "b=c"]),
        (",a,,b,", ["a", "b"]),
        (r"fsname=a\,b,c", ["fsname=a,b", "c"]),
        (r"lowerdir=/a\:b\\", [r"lowerdir=/a\:b\\"]),
        ('context="a:b:c1,c2",ro', ["context=a:b:c1,c2", "ro"]),
        ('context="a,b', ['context="a', "b"]),
        ('lowerdir=/a"b,upperdir=/c"d', ['lowerdir=/a"b', 'upperdir=/c"d']),
    ],
)
def test_words_are_split_at_commas(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_a_comma_in_a_word_is_kept() -> None:
    assert parse_words(["fsname=a,b"]).fsname == "a,b"


def test_unknown_words_are_left_to_who_takes_them() -> None:
    unknown: list[str] = []
    assert parse_words(["private", "ro", "a=b"], unknown).read_only
    assert unknown == ["private", "a=b"]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("0:1:1000", ((0, 1, 1000),)),
        (":0:1:1000", ((0, 1, 1000),)),
        ("0:1:1001:1001:0:1", ((0, 1, 1001), (1001, 0, 1))),
        (":0:100000:4294967295", ((0, 100000, 4294967295),)),
    ],
)
def test_ids_are_triples(text: str, ids: tuple[tuple[int, int, int], ...]) -> None:
    options = parse_options((f"uidmapping={text},gidmapping={text}",))
    assert (options.uids, options.gids) == (ids, ids)


@pytest.mark.parametrize("text", ["", ":", "0:1", "0:1:2:3", "a:b:c", "-1:0:1", "0:0:4294967296"])
def test_ids_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(MountError, match="uidmapping is to be"):
        parse_options((f"uidmapping={text}",))


@pytest.mark.parametrize(
    ("text", "squashed"),
    [
        ("squash_to_root", (True, None, None)),
        ("squash_to_uid=7", (False, 7, None)),
        ("squash_to_gid=7,squash_to_root", (True, None, 7)),
    ],
)
def test_one_id_may_be_shown_of_all(text: str, squashed: tuple[bool, int, int]) -> None:
    options = parse_options((text,))
    assert (options.squash_root, options.squash_uid, options.squash_gid) == squashed


def test_words_of_fuse_overlayfs_are_known() -> None:
    options = parse_options(("noacl,noxattrs=1,static_nlink,ino32_t,xattr_permissions=2",))
    assert not options.acl
    assert not options.xattrs
    assert options.static_nlink
    assert options.short_ino
    assert options.override == 2
