"""What every workload must have."""

from __future__ import annotations

from pathlib import Path

from bench.digest import tree_digest
from bench.systems import SYSTEMS
from bench.tree import Tree
from bench.workloads import WORKLOADS

TREE = Tree(Path(), 13_001, 794, 0, 8_000, 742, "", "")


def test_names_are_unique():
    names = [workload.name for workload in WORKLOADS]
    assert sorted(set(names)) == sorted(names)


def test_limits_are_for_systems_that_exist():
    known = {system.name for system in SYSTEMS}
    for workload in WORKLOADS:
        assert set(workload.limits) <= known, workload.name
        assert set(workload.floor(TREE)) <= set(workload.limits), workload.name


def test_a_limit_is_not_below_what_the_kernel_asks_all_the_same():
    by_name = {workload.name: workload for workload in WORKLOADS}
    assert by_name["rm-lower"].allowed("cached", TREE) == 29_000
    assert by_name["untar"].allowed("cached", TREE) == 62_000 + 2 * 6_800
    assert by_name["untar"].allowed("pyfuse3", TREE) is None
    assert by_name["find"].allowed("cached", TREE) == 796
    assert by_name["open-read"].allowed("cached", TREE) == 0


def test_a_digest_sees_each_difference(tmp_path):
    (tmp_path / "d").mkdir()
    file = tmp_path / "d/file"
    file.write_text("one")
    (tmp_path / "link").symlink_to("d")
    digests = [tree_digest(tmp_path)]
    file.write_text("two")
    digests.append(tree_digest(tmp_path))
    file.chmod(0o600)
    digests.append(tree_digest(tmp_path))
    (tmp_path / "link").unlink()
    digests.append(tree_digest(tmp_path))
    assert len(set(digests)) == 4


def test_a_digest_leaves_out_what_it_is_told_to(tmp_path):
    before = tree_digest(tmp_path)
    (tmp_path / ".wh..wh..opq").touch()
    assert tree_digest(tmp_path, ignore=".wh.") == before
    assert tree_digest(tmp_path) != before
