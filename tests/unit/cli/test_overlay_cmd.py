"""The command line of fuse-overlayfs, as engines write it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from unionfuse.cli import overlay_cmd
from unionfuse.cli.overlay_cmd import Arguments, UsageError, make_plan
from unionfuse.fuse.errors import MountError
from unionfuse.syscalls import mount as sys_mount

if TYPE_CHECKING:
    from pathlib import Path

    from unionfuse.fuse.options import MountPlan


@pytest.fixture(autouse=True)
def _directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("l1", "l2", "upper", "work", "mnt"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)


def planned(*argv: str) -> MountPlan:
    plan, unknown = make_plan(Arguments(list(argv)))
    assert unknown == []
    return plan


def ignored(options: str) -> list[str]:
    return make_plan(Arguments(["-o", f"lowerdir=l1,{options}", "mnt"]))[1]


WRITABLE = "lowerdir=l1:l2,upperdir=upper,workdir=work"


class TestForms:
    @pytest.mark.parametrize(
        "argv",
        [
            ["-o", WRITABLE, "mnt"],
            [f"-o{WRITABLE}", "mnt"],
            ["mnt", "-o", WRITABLE],
            [
                "overlay",
                "mnt",
                "-o",
                "workdir=work",
                "-o",
                "upperdir=upper",
                "-o",
                "lowerdir=l1:l2",
            ],
            ["-o", WRITABLE, "--", "overlay", "mnt"],
            ["-s", "-o", f"{WRITABLE},", "mnt"],
            ["-o", f"{WRITABLE},,volatile", "mnt"],
            ["-o", "upperdir=upper,workdir=work,lowerdir=:l1::l2:", "mnt"],
        ],
        ids=str,
    )
    def test_all_of_them_mean_the_same(self, argv: list[str], tmp_path: Path) -> None:
        plan = planned(*argv)
        base = os.fsencode(tmp_path)
        assert plan.lowers == (base + b"/l1", base + b"/l2")
        assert (plan.upper, plan.workdir) == (base + b"/upper", base + b"/work")
        assert plan.mountpoint == base + b"/mnt"
        assert not plan.foreground

    def test_the_source_is_what_the_mount_table_shows(self) -> None:
        assert planned("overlay", "mnt", "-o", "lowerdir=l1").options.fsname == "overlay"

    def test_without_an_upper_nothing_can_be_written(self) -> None:
        plan = planned("-o", "lowerdir=l1:l2", "mnt")
        assert plan.upper is None
        assert plan.options.read_only

    @pytest.mark.parametrize(
        ("flags", "debug", "foreground"),
        [(["-f"], False, True), (["-d"], True, True), (["-o", "debug"], True, True)],
    )
    def test_debugging_stays_in_the_foreground(
        self, flags: list[str], debug: bool, foreground: bool
    ) -> None:
        plan = planned(*flags, "-o", "lowerdir=l1", "mnt")
        assert (plan.debug, plan.foreground) == (debug, foreground)

    @pytest.mark.parametrize(
        "argv",
        [
            [],
            ["mnt"],
            ["-o", "lowerdir=l1"],
            ["-o", "lowerdir=l1", "a", "b", "mnt"],
            ["mnt", "-o"],
        ],
        ids=str,
    )
    def test_what_has_no_sense_ends_with_2(
        self, argv: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert overlay_cmd.run(argv) == 2
        said = capsys.readouterr().err
        assert said.startswith("unionfuse: ")
        assert said.count("\n") == 1

    def test_a_missing_value_is_told(self) -> None:
        with pytest.raises(UsageError, match="-o needs a value"):
            Arguments(["-o"])


class TestWords:
    @pytest.mark.parametrize("word", ["private", "bogus", "bogus=3", "lazytime"])
    def test_an_unknown_one_is_told_and_skipped(self, word: str) -> None:
        assert ignored(word) == [word]

    def test_an_unknown_flag_is_told_and_skipped(self) -> None:
        assert make_plan(Arguments(["-x", "--bogus", "-o", WRITABLE, "mnt"]))[1] == [
            "-x",
            "--bogus",
        ]

    def test_metacopies_without_redirects_are_told_and_skipped(self) -> None:
        """storage.conf of many distributions has metacopy=on, for the kernel's overlayfs."""
        assert ignored("nodev,metacopy=on") == ["metacopy=on"]
        assert planned("-o", f"{WRITABLE},metacopy=on,redirect_dir=on", "mnt").options.metacopy

    @pytest.mark.parametrize(
        "word",
        ["threaded=1", "fast_ino=1", "kernel_cache", "max_write=131072", "splice_move", "suid"],
    )
    def test_one_that_makes_no_difference_is_known(self, word: str) -> None:
        assert ignored(word) == []

    def test_the_mount_has_the_flags_of_fuse_overlayfs(self) -> None:
        flags = planned("-o", "lowerdir=l1,upperdir=upper,workdir=work", "mnt").options.flags
        assert flags == sys_mount.MS_NODEV | sys_mount.MS_NOATIME

    def test_they_can_be_taken_back(self) -> None:
        options = f"{WRITABLE},dev,suid,atime"
        assert planned("-o", options, "mnt").options.flags == 0

    def test_the_upper_is_one_that_fuse_overlayfs_can_read(self) -> None:
        assert planned("-o", WRITABLE, "mnt").options.redirect_dir == "off"

    def test_volatile_leaves_no_mark_by_which_the_next_mount_is_refused(self) -> None:
        options = planned("-o", f"{WRITABLE},volatile", "mnt").options
        assert options.fsync == "0"

    def test_a_label_with_commas_is_one_word(self) -> None:
        label = "system_u:object_r:container_file_t:s0:c1,c2"
        assert planned("-o", f'lowerdir=l1,context="{label}"', "mnt").options.context == label

    @pytest.mark.parametrize("lower", ["//stargz/info/path", "l1://stargz/x"])
    def test_a_lower_of_a_plugin_is_refused(self, lower: str) -> None:
        with pytest.raises(MountError, match="plugin"):
            make_plan(Arguments(["-o", f"lowerdir={lower}", "mnt"]))

    def test_plugins_are_refused(self) -> None:
        with pytest.raises(MountError, match="plugins are not supported"):
            ignored("plugins=/lib/a.so")


def test_the_version_names_the_program_and_what_it_takes_the_place_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert overlay_cmd.run(["--version"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("unionfuse-overlay: version ")
    assert "fuse-overlayfs: version " in said


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert overlay_cmd.run(["--help"]) == 0
    assert "mount_program" in capsys.readouterr().out
