"""What counts as worse than before."""

from __future__ import annotations

from dataclasses import replace

from bench.compare import compare
from bench.measure import Sample
from bench.requests import Counts


def test_the_same_figures_are_no_change(record, other):
    assert compare(record, other) == []


def test_one_request_more_is_worse(record, other):
    other.results.counts["tar", "auto"] = Counts(GETATTR=1_001)
    (change,) = compare(record, other)
    assert (change.workload, change.what, change.old, change.new) == (
        "tar", "requests", "1,000", "1,001"
    )  # fmt: skip
    assert change.worse


def test_one_request_less_is_a_change_for_the_better(record, other):
    other.results.counts["tar", "auto"] = Counts(GETATTR=999)
    assert [change.worse for change in compare(record, other)] == [False]


def test_requests_that_nobody_waits_for_do_not_count(record, other):
    other.results.counts["tar", "auto"] = Counts(GETATTR=1_000, RELEASE=900)
    assert compare(record, other) == []


def test_requests_that_depend_on_the_clock_are_not_compared(record, other):
    other.results.counts["tar", "auto"] = Counts(GETATTR=2_000)
    other.workloads["tar"] = replace(other.workloads["tar"], unsteady=("auto",))
    assert compare(record, other) == []


def test_a_ratio_above_the_margin_is_worse(record, other):
    other.results.samples["tar", "auto"] = [Sample(0.8, 0.1, 2_048), Sample(0.88, 0.1, 2_048)]
    (change,) = compare(record, other)
    assert (change.old, change.new, change.worse) == ("0.50", "0.80", True)
    assert compare(record, other, margin=1.0) == []


def test_a_ratio_that_one_round_had_before_is_within_the_spread(record, other):
    other.results.samples["tar", "auto"] = [Sample(0.5, 0.1, 2_048), Sample(2.2, 0.1, 2_048)]
    assert compare(record, other) == []


def test_a_slower_machine_alone_changes_nothing(record, other):
    for key, samples in other.results.samples.items():
        other.results.samples[key] = [replace(one, seconds=one.seconds * 3) for one in samples]
    assert compare(record, other) == []


def test_what_fails_now_is_worse(record, other):
    other.results.samples["tar", "auto"] = [None, None]
    assert [(change.new, change.worse) for change in compare(record, other)] == [("failed", True)]


def test_peers_are_not_judged(record, other):
    other.results.samples["tar", "fuse-overlayfs"] = [Sample(50.0, 1.0, 1), Sample(50.0, 1.0, 1)]
    assert compare(record, other) == []


def test_a_workload_that_is_new_is_no_change(record, other):
    del record.workloads["tar"]
    other.results.counts["tar", "auto"] = Counts(GETATTR=2_000)
    assert compare(record, other) == []
