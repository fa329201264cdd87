"""The counts of before, and of now."""

from __future__ import annotations

from bench import baseline
from bench.baseline import COUNTED, differences
from bench.systems import SYSTEMS
from bench.workloads import WORKLOADS


def test_one_request_more_is_found_and_named():
    found = differences({"auto": {"tar": {"READ": 2}}}, {"auto": {"tar": {"READ": 2, "OPEN": 1}}})
    assert found.more == ["tar on auto: 3 requests, not 2 (OPEN 0 -> 1)"]
    assert found.fewer == []


def test_fewer_requests_are_no_error():
    found = differences({"auto": {"tar": {"READ": 2}}}, {"auto": {"tar": {}}})
    assert found.more == []
    assert found.fewer == ["tar on auto: 0 requests, not 2 (READ 2 -> 0)"]


def test_what_is_not_in_the_baseline_is_an_error():
    assert differences({}, {"auto": {"tar": {}}}).more == ["tar on auto: not in the baseline"]


def test_what_is_counted_exists_and_is_steady():
    workloads = {workload.name: workload for workload in WORKLOADS}
    for system, names in COUNTED.items():
        assert system in {known.name for known in SYSTEMS}
        for name in names:
            assert system not in workloads[name].unsteady


def test_a_kernel_keeps_its_own_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(baseline, "BASELINE", tmp_path / "baseline.json")
    monkeypatch.setattr(baseline, "kernel", lambda: "6.12")
    baseline.keep({"auto": {"tar": {"READ": 2}}})
    monkeypatch.setattr(baseline, "kernel", lambda: "6.18")
    baseline.keep({"auto": {"tar": {"READ": 1}}})
    assert baseline.kernels() == {"6.12", "6.18"}
    assert baseline.kept() == {"auto": {"tar": {"READ": 1}}}


def test_everything_that_is_counted_is_in_the_baseline():
    for kernel in baseline.kernels():
        content = baseline.json.loads(baseline.BASELINE.read_text())[kernel]
        assert {system: set(names) for system, names in COUNTED.items()} == {
            system: set(workloads) for system, workloads in content.items()
        }
