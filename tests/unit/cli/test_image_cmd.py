"""`unionfuse image`: what its commands print, and what they refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.support.images import (
    BASE,
    CHANGES,
    MadeImage,
    archive,
    layout_files,
    make_image,
    tar_of,
    write_files,
    write_nothing_to_disk,
)
from unionfuse.cli.group import cli
from unionfuse.cli.image.common import sized
from unionfuse.cli.image_cmd import COMMANDS
from unionfuse.image.layers.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

IMAGE = make_image(BASE, CHANGES)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    write_nothing_to_disk(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIONFUSE_ROOT", str(tmp_path / "store"))

    def run(*arguments: str | Path, **more: object) -> Result:
        return CliRunner().invoke(cli, ["image", *map(str, arguments)], **more)

    return run


@pytest.fixture
def loaded(run: Callable[..., Result], tmp_path: Path) -> MadeImage:
    (tmp_path / "x.tar").write_bytes(archive(layout_files(("localhost/x:1", IMAGE))))
    result = run("load", "x.tar")
    assert (result.exit_code, result.output) == (0, "loaded localhost/x:1\n")
    return IMAGE


def objects(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run, name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output


def test_the_list_has_what_programs_need(run, loaded):
    [row] = objects(run("ls", "--json"))
    assert row["ref"] == "localhost/x:1"
    assert row["id"] == loaded.config.digest
    assert row["digest"] == loaded.descriptor.digest
    assert row["created"] == "2024-01-02T03:04:05Z"
    assert (row["size"], row["shared"]) == (26, 0)
    assert len(row["layers"]) == 2
    assert "localhost/x:1" in run("ls").output


def test_a_layer_of_two_images_is_shared(run, loaded, tmp_path):
    write_files(tmp_path / "layout", layout_files(("localhost/base:1", make_image(BASE))))
    run("load", "layout")
    rows = objects(run("ls", "--json"))
    assert [(row["size"], row["shared"]) for row in rows] == [(18, 18), (26, 18)]
    assert run("tree").output.splitlines() == [
        f"{rows[0]['layers'][0][7:19]} 18 B  localhost/base:1",
        f"└─ {rows[1]['layers'][1][7:19]} 8 B  localhost/x:1",
    ]


def test_all_is_told_of_an_image(run, loaded):
    [found] = objects(run("inspect", "x:1"))
    assert found["names"] == ["localhost/x:1"]
    assert found["config"]["config"]["Cmd"] == ["sh"]
    assert [layer["size"] for layer in found["layers"]] == [18, 8]
    assert all(Path(layer["directory"]).is_dir() for layer in found["layers"])


def test_the_history_is_told_the_last_step_first(run, loaded):
    steps = objects(run("history", "--json", "x:1"))
    assert [step["created_by"] for step in steps] == ["step 1", "step 0"]
    assert "step 1" in run("history", "x:1").output


def test_removing_the_last_name_removes_the_layers(run, loaded, tmp_path):
    assert run("tag", "x:1", "localhost/y:1").exit_code == 0
    assert run("rm", "localhost/y:1").output == "removed localhost/y:1\n"
    result = run("rm", "x:1")
    assert result.output.startswith("removed localhost/x:1\nfreed ")
    assert list((tmp_path / "store/layers").iterdir()) == []


def test_layers_can_be_left_to_gc(run, loaded, tmp_path):
    run("rm", "--keep-layers", "x:1")
    assert len(list((tmp_path / "store/layers").iterdir())) == 2
    assert "would free" in run("gc", "--dry-run").output
    assert objects(run("gc", "--json"))["size"] > 0
    assert list((tmp_path / "store/layers").iterdir()) == []


def test_what_is_not_there_is_one_line_and_others_are_removed(run, loaded):
    result = run("rm", "no/such:1", "x:1")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "removed localhost/x:1" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "no:1"),
        ("history", "Not A Name"),
        ("load", "missing.tar"),
        ("save", "no:1", "-o", "x"),
        ("mount", "no:1", "."),
        ("commit", "missing", "x"),
        ("diff", "no:1"),
        ("unpack", "no:1", "target"),
        ("import", "missing.tar", "x"),
    ],
)
def test_what_can_not_be_done_is_one_line_and_code_1(run, arguments):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("unionfuse: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("save", "x", "--format", "oci-dir"),
        ("save", "x", "--all-platforms", "--format", "docker-archive", "-o", "x"),
        ("mount", "x", "mnt", "--workdir", "w"),
        ("commit", "u", "x", "--env", "novalue"),
        ("commit", "u", "x", "--cmd", "[1]"),
        ("commit", "u", "x", "--cmd", "'open"),
        ("diff", "a", "b", "c"),
    ],
)
def test_a_command_line_without_sense_is_code_2(run, arguments):
    assert run(*arguments).exit_code == 2


def test_what_is_saved_can_be_loaded(run, loaded, tmp_path):
    for kind in ("oci-archive", "oci-dir", "docker-archive"):
        assert run("save", "x:1", "--format", kind, "-o", kind).exit_code == 0
        run("rm", "x:1")
        assert run("load", kind).output == "loaded localhost/x:1\n"
        assert objects(run("ls", "--json"))[0]["id"] == loaded.config.digest


def test_an_archive_can_go_through_pipes(run, loaded):
    data = run("save", "x:1").stdout_bytes
    run("rm", "x:1")
    assert run("load", "-", input=data).output == "loaded localhost/x:1\n"


def test_what_has_no_name_at_a_registry_is_not_pushed(run, loaded):
    made_here = run("push", "x:1")
    assert (made_here.exit_code, "names no registry" in made_here.stderr) == (1, True)
    by_id = run("push", loaded.config.digest[7:19])
    assert (by_id.exit_code, "is an id" in by_id.stderr) == (1, True)


def test_a_failed_save_leaves_what_was_there(run, loaded, tmp_path):
    (tmp_path / "x").write_text("before")
    for blob in (tmp_path / "store/blobs/sha256").iterdir():
        if blob.stat().st_size < 200:  # a layer
            blob.write_bytes(b"damaged")
    assert run("save", "x:1", "-o", "x").exit_code == 1
    assert (tmp_path / "x").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "x", "x.tar"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("save", "x:1", "-o", "none/there"),
        ("save", "x:1", "--format", "oci-dir", "-o", "none/there"),
        ("export", "x:1", "-o", "none/there"),
        ("unpack", "x:1", "none/there"),
    ],
)
def test_where_nothing_can_be_written_is_told(run, loaded, arguments):
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr == "unionfuse: none/there: No such file or directory\n"


@pytest.mark.parametrize("command", ["save", "export"])
def test_a_disk_that_is_full_is_told_with_what_was_written(run, loaded, command):
    result = run(command, "x:1", "-o", "/dev/full")
    assert (result.exit_code, result.stderr) == (
        1, "unionfuse: /dev/full: No space left on device\n",
    )  # fmt: skip


def test_a_failed_load_leaves_nothing(run, tmp_path):
    files = layout_files(("localhost/x:1", make_image(BASE, diff_ids=["sha256:" + "0" * 64])))
    (tmp_path / "bad.tar").write_bytes(archive(files))
    assert run("load", "bad.tar").exit_code == 1
    assert list((tmp_path / "store/blobs/sha256").iterdir()) == []
    assert list((tmp_path / "store/layers").iterdir()) == []
    assert list((tmp_path / "store/tmp").iterdir()) == []


def test_a_rootfs_is_imported_committed_to_and_exported(run, tmp_path):
    result = run("import", "-", "localhost/base:1", "--cmd", '["sh", "-c"]', input=tar_of(BASE))
    [found] = objects(run("inspect", "base:1"))
    assert result.output == found["id"] + "\n"
    assert found["config"]["config"] == {"Cmd": ["sh", "-c"]}
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/new").write_text("new\n")
    made = objects(
        run("commit", "upper", "localhost/new:1", "--base", "base:1", "-e", "A=b", "--json")
    )
    assert made["entries"] == 1
    assert run("diff", "new:1").output == "A /new\n"
    assert run("squash", "new:1", "localhost/flat:1").exit_code == 0
    assert run("diff", "new:1", "flat:1").output == ""
    assert run("export", "new:1", "-o", "rootfs.tar").exit_code == 0
    assert run("import", "rootfs.tar", "localhost/again:1").exit_code == 0
    assert run("diff", "new:1", "again:1").output == ""


def test_limits_can_be_lifted(run, monkeypatch):
    sizes = []
    monkeypatch.setattr(Limits, "check_stream", lambda self, *_: sizes.append(self.total_bytes))
    tar = tar_of({"file": b""})
    assert run("import", "-", "x", input=tar).exit_code == 0
    assert run("--unlimited", "import", "-", "x:2", "--label", "a=b", input=tar).exit_code == 0
    run("rm", "x", "x:2")
    assert run("--unlimited", "import", "-", "x", input=tar).exit_code == 0
    assert set(sizes) == {Limits().total_bytes, sys.maxsize}


def test_a_commit_needs_to_know_its_base(run, tmp_path):
    (tmp_path / "upper").mkdir()
    result = run("commit", "upper", "x")
    assert result.exit_code == 1
    assert "give --base REF, or --base scratch" in result.stderr
    assert run("commit", "upper", "x", "--base", "scratch").exit_code == 0


def test_damage_is_told_and_mended(run, loaded, tmp_path):
    assert run("verify").output == "4 blobs and 2 layers verified\n"
    [found] = objects(run("inspect", "x:1"))
    name = Path(found["layers"][0]["directory"]) / "etc/name"
    name.write_text("BASE\n")
    result = run("verify")
    assert result.exit_code == 1
    assert "in localhost/x:1" in result.stdout
    assert result.stderr == "unionfuse: 1 problem in the store\n"
    assert run("verify", "--repair").exit_code == 0
    assert name.read_text() == "base\n"


def test_a_database_that_is_damaged_is_made_anew(run, loaded, tmp_path):
    (tmp_path / "store/store.db").write_bytes(b"nothing" * 1000)
    assert "verify --repair" in run("ls").stderr
    assert run("verify", "--repair").exit_code == 0
    assert objects(run("ls", "--json"))[0]["id"] == loaded.config.digest


@pytest.mark.parametrize("content", [None, b"nothing"])
def test_names_outside_of_the_database_are_verified_too(run, loaded, tmp_path, content):
    index = tmp_path / "store/index.json"
    before = index.read_bytes()
    index.unlink()
    if content is not None:
        index.write_bytes(content)
    result = run("verify")
    assert (result.exit_code, "index.json" in result.stdout) == (1, True)
    assert run("verify", "--repair").exit_code == 0
    assert index.read_bytes() == before


def test_damage_deep_in_the_database_is_mended_too(run, loaded, tmp_path):
    path = tmp_path / "store/store.db"
    first, rest = path.read_bytes()[:4096], path.read_bytes()[4096:]
    path.write_bytes(first + b"\xff" * len(rest))
    result = run("verify")
    assert (result.exit_code, "verify --repair" in result.stdout) == (1, True)
    assert run("verify", "--repair").exit_code == 0
    assert objects(run("ls", "--json"))[0]["id"] == loaded.config.digest


def test_a_bundle_is_unpacked(run, loaded, tmp_path):
    assert run("unpack", "--bundle", "x:1", "bundle").exit_code == 0
    assert (tmp_path / "bundle/rootfs/etc/name").read_text() == "changed\n"
    assert json.loads((tmp_path / "bundle/config.json").read_bytes())["process"]["args"] == ["sh"]
    assert run("unpack", "x:1", "bundle").stderr == "unionfuse: bundle is there, and not empty\n"


def test_what_was_written_is_told_as_json(run, loaded, tmp_path):
    known = {"id": loaded.config.digest, "digest": loaded.descriptor.digest}
    image = {"ref": "localhost/x:1", **known}
    assert objects(run("save", "x:1", "-o", "x", "--json")) == [image]
    assert objects(run("export", "x:1", "-o", "x", "--json")) == {**known, "notes": []}
    layers = [str(tmp_path / "layers" / name) for name in "12"]
    assert objects(run("unpack", "x:1", tmp_path / "layers", "--json")) == {
        **known,
        "layers": layers,
    }
    assert objects(run("unpack", "--bundle", "x:1", "bundle", "--json")) == {**known, "layers": []}
    for command in ("save", "export"):
        assert run(command, "x:1", "--json").exit_code == 2


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (123_456_789, "123 MB"), (5 * 10**15, "5e+03 TB")],
)
def test_sizes_are_short(size, shown):
    assert sized(size) == shown
