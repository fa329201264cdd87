"""The page and the plots that are made of a record."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench.report import page, write_report

PLOTS = {"means.svg", "ratios-reading.svg", "ratios-writing.svg", "layers.svg", "mounts.svg"}


def test_every_plot_is_made_and_shown(tmp_path, record):
    write_report(record, tmp_path / "benchmarks")
    written = {path.name for path in (tmp_path / "benchmarks").glob("*.svg")}
    assert written == PLOTS
    text = (tmp_path / "benchmarks/README.md").read_text()
    assert all(f"]({plot})" in text for plot in PLOTS)


@pytest.mark.parametrize("plot", sorted(PLOTS))
def test_a_plot_is_the_same_every_time(tmp_path, record, other, plot):
    write_report(record, tmp_path / "one")
    write_report(other, tmp_path / "two")
    one = (tmp_path / "one" / plot).read_bytes()
    assert one == (tmp_path / "two" / plot).read_bytes()
    assert ElementTree.fromstring(one).tag.endswith("svg")


def test_a_plot_names_the_systems_and_the_workloads(tmp_path, record):
    write_report(record, tmp_path)
    text = (tmp_path / "ratios-reading.svg").read_text()
    assert ">tar<" in text
    assert ">unionfuse (auto)<" in text
    assert ">fuse-overlayfs<" in text


def test_times_are_ratios_with_their_spread(record):
    assert "| tar | 1,050 | 5.00 (5.00-5.00) | 0.50 (0.50-0.50) |" in page(record, [])


def test_a_round_that_failed_is_named(record):
    record.results.samples["tar", "auto"] = [None]
    assert "| tar | 1,050 | 5.00 (5.00-5.00) | failed |" in page(record, [])


def test_means_say_of_how_many_workloads_they_are(record):
    assert "| all | 3.35 of 2 | 0.87 of 2 |" in page(record, [])


def test_requests_are_those_that_somebody_waits_for(record):
    assert "| tar | 1,000 |" in page(record, [])


def test_figures_of_what_grows_are_a_row_a_number(record):
    assert "| 400 | 800 | 800 |" in page(record, [])


def test_what_failed_is_not_hidden(record):
    assert "- fuse-overlayfs: `400 layers: the daemon died`" in page(record, [])


def test_a_record_without_workloads_has_a_page(tmp_path, record):
    record.results.samples.clear()
    record.workloads.clear()
    write_report(record, tmp_path)
    assert "## Many layers" in (tmp_path / "README.md").read_text()
    assert not (tmp_path / "means.svg").exists()
