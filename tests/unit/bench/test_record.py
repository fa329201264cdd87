"""What is kept of a measuring."""

from __future__ import annotations

import json
import socket

import pytest

from bench.errors import BenchError
from bench.measure import Sample
from bench.record import FORMAT, load, new_record, save
from bench.requests import Counts
from bench.systems import SYSTEMS


def test_what_is_saved_is_loaded(tmp_path, record):
    record.results.add("tar", "auto", Sample(0.5, 0.1, 2_048, Counts(GETATTR=1_000)))
    save(record, tmp_path / "new/record.json")
    again = load(tmp_path / "new/record.json")
    assert again.results.samples == record.results.samples
    assert again.results.counts == record.results.counts
    assert again.results.failures == record.results.failures
    assert (again.points, again.systems, again.workloads, again.scales, again.machine) == (
        record.points, record.systems, record.workloads, record.scales, record.machine
    )  # fmt: skip


def test_a_round_that_failed_stays_one(tmp_path, record):
    record.results.add("tar", "auto", None)
    save(record, tmp_path / "record.json")
    assert load(tmp_path / "record.json").results.samples["tar", "auto"][-1] is None


def test_a_file_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(BenchError, match=r"none\.json: No such file"):
        load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 2}', '{"format": 2, "samples": 3}']
)
def test_another_file_is_no_record(tmp_path, content):
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(BenchError, match="no record"):
        load(tmp_path / "record.json")


def test_a_record_of_another_format_is_refused(tmp_path, record):
    path = tmp_path / "record.json"
    save(record, path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": FORMAT + 1}))
    with pytest.raises(BenchError, match=f"format {FORMAT + 1}, not {FORMAT}"):
        load(path)


def test_nothing_names_the_machine(tmp_path):
    installed = [system for system in SYSTEMS if not system.missing()]
    save(new_record(installed, tmp_path), tmp_path / "record.json")
    text = (tmp_path / "record.json").read_text()
    assert str(tmp_path) not in text
    assert f'"{socket.gethostname()}"' not in text
    assert all(facts["version"] != "unknown" for facts in json.loads(text)["systems"].values())


def test_the_load_of_the_machine_is_noted_before_and_after(record):
    record.note_load()
    before, after = str(record.machine["load"]).split(", ")
    assert before == "0.4"
    assert float(after) >= 0
