"""The figures made from samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import rounds
from bench.errors import BenchError
from bench.measure import How, Sample
from bench.requests import Counts
from bench.rounds import Results, run_rounds, steps
from bench.systems import BARE, OVERLAYFS
from bench.tree import Tree
from bench.workloads import WORKLOADS
from bench.workloads.reading import EVERYTHING

TREE = Tree(Path(), 13_001, 794, 0, 8_000, 742, "", "")
FIND = next(workload for workload in WORKLOADS if workload.name == "find")


def results(seconds: dict[tuple[str, str], list[float | None]]) -> Results:
    made = Results()
    for (workload, system), values in seconds.items():
        for value in values:
            made.add(workload, system, None if value is None else Sample(value, 0.0, 0))
    return made


def test_a_ratio_is_the_median_over_the_rounds():
    made = results({("tar", "a"): [2.0, 9.0, 3.0], ("tar", "b"): [1.0, 3.0, 3.0]})
    ratio = made.ratio("tar", "a", "b")
    assert (ratio.median, ratio.least, ratio.most) == (2.0, 1.0, 3.0)


def test_a_round_that_failed_on_either_side_is_left_out():
    made = results({("tar", "a"): [2.0, None, 8.0], ("tar", "b"): [None, 1.0, 2.0]})
    assert made.ratio("tar", "a", "b").median == 4.0


def test_there_is_no_ratio_to_what_was_not_measured():
    made = results({("tar", "a"): [2.0]})
    assert made.ratio("tar", "a", "b") is None
    assert made.mean_ratio(["tar"], "a", "b") is None


def test_the_mean_is_geometric_and_says_of_how_many():
    made = results({("tar", "a"): [4.0], ("find", "a"): [1.0], ("rm", "a"): [1.0],
                    ("tar", "b"): [1.0], ("find", "b"): [1.0], ("rm", "b"): [None]})  # fmt: skip
    assert made.mean_ratio(["tar", "find", "rm"], "a", "b") == (pytest.approx(2.0), 2)


def test_the_requests_are_the_least_of_the_rounds():
    made = Results()
    made.note_counts("tar", "a", Sample(9.0, 0.0, 0, Counts(READ=5)))
    made.add("tar", "a", Sample(1.0, 0.0, 0, Counts(READ=4, RELEASE=9)))
    made.add("tar", "a", Sample(1.0, 0.0, 0, Counts(READ=6)))
    made.add("tar", "a", None)
    assert made.counts["tar", "a"].waited_for == 4


def test_what_was_not_counted_has_no_requests():
    assert results({("tar", "a"): [1.0]}).counts == {}


def run(monkeypatch, often: dict[str, int], broken: set[str] = frozenset()):
    """Run find on a directory and on overlayfs, `broken` failing; return what was run."""
    ran = []

    def once(system, workload, *_):
        if workload is not EVERYTHING:
            ran.append(system.name)
            if system.name in broken:
                raise BenchError("broken")
        return Sample(1.0, 0.0, 0)

    monkeypatch.setattr(rounds, "once", once)
    found = run_rounds([BARE, OVERLAYFS], [FIND], TREE, Path("/d"), often, How(), str)
    return ran, found


def test_systems_take_turns_and_the_order_alternates(monkeypatch):
    ran, found = run(monkeypatch, {"bare": 2, "overlayfs": 2})
    assert ran == ["bare", "overlayfs", "overlayfs", "bare", "bare", "overlayfs"]
    assert len(found.good("find", "bare")) == 2  # the first was to warm up


def test_a_system_that_is_measured_once_is_in_the_first_round_and_not_warmed_up(monkeypatch):
    ran, found = run(monkeypatch, {"bare": 1, "overlayfs": 2})
    assert ran == ["overlayfs", "overlayfs", "bare", "overlayfs"]
    assert len(found.good("find", "bare")) == 1


def test_what_fails_twice_is_not_tried_again(monkeypatch):
    ran, found = run(monkeypatch, {"bare": 5, "overlayfs": 5}, {"overlayfs"})
    assert ran.count("overlayfs") == 2
    assert found.samples["find", "overlayfs"] == [None] * 5
    assert len(found.failures) == 2


def test_the_steps_of_a_run_are_known_before():
    assert steps([BARE, OVERLAYFS], [FIND], {"bare": 1, "overlayfs": 2}) == 2 + 4
