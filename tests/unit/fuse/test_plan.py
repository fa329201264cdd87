"""Every mistake about a mount is told in one line, before anything is mounted."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from unionfuse.fuse.errors import MountError
from unionfuse.fuse.options import MountPlan
from unionfuse.fuse.plan import make_plan, nested_in
from unionfuse.record import replace

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def plan(tmp_path: Path) -> MountPlan:
    for name in ("lower", "upper", "mnt"):
        (tmp_path / name).mkdir()
    base = os.fsencode(tmp_path)
    return MountPlan((base + b"/lower",), base + b"/upper", None, base + b"/mnt")


def refusal(plan: MountPlan) -> str:
    with pytest.raises(MountError) as caught:
        make_plan(plan)
    text = str(caught.value)
    assert "\n" not in text
    return text


def at(tmp_path: Path, name: str) -> bytes:
    return os.fsencode(tmp_path / name)


def test_the_workdir_is_beside_the_upper_and_has_its_name(plan: MountPlan) -> None:
    assert plan.upper is not None
    assert make_plan(plan).workdir == plan.upper + b".work"


def test_a_slash_at_the_end_of_the_upper_changes_nothing(plan: MountPlan) -> None:
    assert plan.upper is not None
    assert make_plan(replace(plan, upper=plan.upper + b"/")).workdir == plan.upper + b".work"


def test_nothing_is_made(plan: MountPlan, tmp_path: Path) -> None:
    make_plan(plan)
    assert sorted(os.listdir(tmp_path)) == ["lower", "mnt", "upper"]


def test_all_paths_are_absolute(
    plan: MountPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = MountPlan((b"lower",), b"upper", b"work", b"mnt")
    assert make_plan(relative) == make_plan(replace(plan, workdir=at(tmp_path, "work")))


def test_symlinks_to_layers_are_resolved(plan: MountPlan, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("lower")
    made = make_plan(replace(plan, lowers=(at(tmp_path, "link"),)))
    assert made.lowers == (at(tmp_path, "lower"),)


def test_without_an_upper_the_mount_is_read_only(plan: MountPlan) -> None:
    made = make_plan(replace(plan, upper=None))
    assert made.options.read_only
    assert made.workdir is None


@pytest.mark.parametrize("lowers", [(), (b"",)])
def test_an_empty_lower(plan: MountPlan, lowers: tuple[bytes, ...]) -> None:
    assert "empty lower layer" in refusal(replace(plan, lowers=lowers))


@pytest.mark.parametrize("field", ["lowers", "upper", "mountpoint"])
def test_a_directory_that_is_missing(plan: MountPlan, tmp_path: Path, field: str) -> None:
    missing = at(tmp_path, "missing")
    text = refusal(replace(plan, **{field: (missing,) if field == "lowers" else missing}))
    assert "missing: No such file or directory" in text


@pytest.mark.parametrize("field", ["lowers", "upper", "mountpoint", "workdir"])
def test_a_file_in_the_place_of_a_directory(plan: MountPlan, tmp_path: Path, field: str) -> None:
    (tmp_path / "file").touch()
    file = at(tmp_path, "file")
    text = refusal(replace(plan, **{field: (file,) if field == "lowers" else file}))
    assert "file: Not a directory" in text


def test_a_workdir_below_a_missing_directory(plan: MountPlan, tmp_path: Path) -> None:
    assert "missing" in refusal(replace(plan, workdir=at(tmp_path, "missing/work")))


@pytest.mark.root
def test_a_workdir_on_another_filesystem(plan: MountPlan, tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    command = ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "memory")]
    subprocess.run(command, check=True, timeout=30)
    try:
        text = refusal(replace(plan, workdir=at(tmp_path, "memory/work")))
    finally:
        subprocess.run(["umount", str(tmp_path / "memory")], check=True, timeout=30)
    assert "different filesystems" in text


def test_a_layer_that_is_its_own_upper(plan: MountPlan) -> None:
    assert "as a lower layer and as the upper" in refusal(replace(plan, upper=plan.lowers[0]))


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("upper", "lower/inside"),
        ("lowers", "upper/inside"),
        ("workdir", "upper/work"),
        ("workdir", "lower/work"),
    ],
)
def test_directories_one_inside_the_other(
    plan: MountPlan, tmp_path: Path, field: str, path: str
) -> None:
    (tmp_path / path).mkdir()
    inside = at(tmp_path, path)
    text = refusal(replace(plan, **{field: (inside,) if field == "lowers" else inside}))
    assert "must not be one inside the other" in text


@pytest.mark.parametrize("layer", ["lower", "upper"])
def test_a_mountpoint_inside_a_layer(plan: MountPlan, tmp_path: Path, layer: str) -> None:
    (tmp_path / layer / "mnt").mkdir()
    assert "would contain itself" in refusal(replace(plan, mountpoint=at(tmp_path, f"{layer}/mnt")))


def test_a_layer_inside_the_mountpoint(plan: MountPlan, tmp_path: Path) -> None:
    (tmp_path / "mnt/lower").mkdir()
    text = refusal(replace(plan, lowers=(at(tmp_path, "mnt/lower"),)))
    assert "would hide it" in text


@pytest.mark.parametrize(
    ("upper", "mountpoint"),
    [("lower/upper", "mnt"), ("upper", "lower/mnt"), ("upper", "lower"), ("upper", ".")],
)
def test_what_may_be_nested(plan: MountPlan, tmp_path: Path, upper: str, mountpoint: str) -> None:
    for name in (upper, mountpoint):
        (tmp_path / name).mkdir(exist_ok=True)
    nested = replace(plan, upper=at(tmp_path, upper), mountpoint=at(tmp_path, mountpoint))
    if mountpoint == ".":  # holds the upper, too
        nested = replace(nested, upper=None)
    refusal(nested)
    made = make_plan(nested, nested=True)
    assert (nested_in(made) is not None) is upper.startswith("lower")


def test_an_upper_that_holds_a_lower_is_never_right(plan: MountPlan, tmp_path: Path) -> None:
    (tmp_path / "upper/inside").mkdir()
    with pytest.raises(MountError, match="one inside the other"):
        make_plan(replace(plan, lowers=(at(tmp_path, "upper/inside"),)), nested=True)


def test_names_that_only_begin_alike_are_no_trouble(plan: MountPlan, tmp_path: Path) -> None:
    for name in ("lower2", "upper2"):
        (tmp_path / name).mkdir()
    make_plan(replace(plan, lowers=(*plan.lowers, at(tmp_path, "lower2"), at(tmp_path, "upper2"))))
