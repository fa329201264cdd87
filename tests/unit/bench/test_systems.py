"""What is compared."""

from __future__ import annotations

from pathlib import Path

from bench.facts import filesystem
from bench.rounds import fits
from bench.systems import SYSTEMS, Layers, branches, fuse_overlayfs
from bench.workloads import WORKLOADS


def test_a_system_that_copies_nothing_up_gets_only_what_reads():
    mergerfs = next(system for system in SYSTEMS if system.name == "mergerfs")
    allowed = {workload.name for workload in WORKLOADS if fits(workload, mergerfs)}
    assert {"tar-cold", "find", "missing", "read-big"} <= allowed
    assert not allowed & {"append-big", "append", "create", "untar", "chown", "gcc", "git-status"}


def test_what_changes_the_tree_does_not_only_read():
    assert not [w.name for w in WORKLOADS if w.reads_only and w.changes]


def test_a_program_that_is_missing_says_how_to_get_it():
    for system in SYSTEMS:
        if system.missing():
            assert "install" in system.missing() or "modprobe" in system.missing()
    assert "is not there" in fuse_overlayfs("/nowhere/fuse-overlayfs", "other").missing()


def test_a_path_of_this_machine_is_not_part_of_a_summary():
    assert fuse_overlayfs("/home/me/fuse-overlayfs").summary == "fuse-overlayfs, its defaults"


def test_branches_are_in_the_order_of_the_layers():
    layers = Layers((Path("/t/lower1"), Path("/t/lower2")), Path("/r/upper"), Path(), Path())
    assert branches(layers) == "/r/upper=RW:lower1=RO:lower2=RO"


def test_the_filesystem_is_that_of_the_innermost_mount():
    assert filesystem(Path("/proc/self")) == "proc"
    assert filesystem(Path("/sys/kernel")) in {"sysfs", "tracefs"}
