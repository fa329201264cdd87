"""The figures made from samples."""

from __future__ import annotations

import pytest

from bench.measure import Sample
from bench.requests import Counts
from bench.rounds import Results


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
