"""The command line: what it makes of what it is given."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.record import save
from bench.requests import Counts
from bench.systems import SYSTEMS
from bench.workloads import WORKLOADS


@pytest.fixture
def bench():
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_everything_is_listed_with_what_a_user_does(bench):
    printed = bench("list").output
    assert all(f"{system.name} " in printed for system in SYSTEMS)
    assert all(workload.does in printed for workload in WORKLOADS)
    assert "mounts " in printed


def test_two_equal_records_are_no_regression(bench, tmp_path, record):
    save(record, tmp_path / "old.json")
    found = bench("compare", tmp_path / "old.json", tmp_path / "old.json")
    assert (found.exit_code, found.output) == (0, "nothing has changed\n")


def test_a_regression_is_exit_code_1_and_an_improvement_0(bench, tmp_path, record, other):
    other.results.counts["tar", "auto"] = Counts(GETATTR=1_001)
    save(record, tmp_path / "old.json")
    save(other, tmp_path / "new.json")
    assert bench("compare", tmp_path / "old.json", tmp_path / "new.json").exit_code == 1
    assert bench("compare", tmp_path / "new.json", tmp_path / "old.json").exit_code == 0


@pytest.mark.parametrize("command", [["report"], ["compare", __file__]])
def test_what_is_no_record_is_one_line_and_exit_code_1(bench, tmp_path, command):
    (tmp_path / "other.json").write_text("{}")
    found = bench(*command, tmp_path / "other.json")
    assert found.exit_code == 1
    assert found.output.startswith("Error: ")
    assert found.output.count("\n") == 1


def test_a_report_is_written_where_it_is_wanted(bench, tmp_path, record):
    save(record, tmp_path / "record.json")
    assert bench("report", tmp_path / "record.json", "--docs", tmp_path / "docs").exit_code == 0
    assert (tmp_path / "docs/README.md").exists()


@pytest.mark.parametrize(
    "arguments",
    [["run", "--workloads", "no"], ["run", "--systems", "no"], ["layers", "--numbers", "0"],
     ["layers", "--numbers", "many"], ["run", "--rounds", "0"]],
)  # fmt: skip
def test_what_makes_no_sense_is_exit_code_2(bench, tmp_path, arguments):
    assert bench(*arguments, "--dir", tmp_path).exit_code == 2


def test_a_system_that_is_not_there_is_left_out_with_a_line(bench, tmp_path):
    other = f"other={tmp_path}/fuse-overlayfs"
    found = bench("run", "--systems", "other", "--fuse-overlayfs", other, "--dir", tmp_path)
    assert found.exit_code == 1
    assert "other is left out: " in found.output
    assert "nothing is left to measure" in found.output
