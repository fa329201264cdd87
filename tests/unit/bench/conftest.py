"""A record of a measuring that never was."""

from __future__ import annotations

import pytest

from bench.measure import Sample
from bench.plots import draw_all
from bench.record import Record, ScaleFacts, SystemFacts, WorkloadFacts
from bench.requests import Counts
from bench.rounds import Failure, Results
from bench.scaling import Point

SECONDS = {
    ("tar", "overlayfs"): [1.0, 1.1],
    ("tar", "fuse-overlayfs"): [5.0, 5.5],
    ("tar", "auto"): [0.5, 0.55],
    ("create", "overlayfs"): [2.0, 2.0],
    ("create", "fuse-overlayfs"): [4.0, 5.0],
    ("create", "auto"): [3.0, 3.0],
}


def make_record() -> Record:
    results = Results()
    for (workload, system), rounds in SECONDS.items():
        for seconds in rounds:
            daemon = system != "overlayfs"
            results.add(workload, system, Sample(seconds, 0.1 * daemon, 2_048 * daemon))
    results.counts["tar", "auto"] = Counts(GETATTR=1_000, RELEASE=7)
    results.counts["create", "auto"] = Counts(CREATE=2_000)
    results.failures.append(Failure("fuse-overlayfs", "400 layers: the daemon died"))
    names = ("mount_ms", "pss_mib")
    return Record(
        machine={
            "kernel": "6.18.0",
            "processor": "A processor",
            "processors": 2,
            "memory_mib": 4_096,
            "filesystem": "ext4",
            "python": "3.11.2",
            "load": "0.4",
        },
        time="2026-01-02T03:04:05Z",
        drop_caches=False,
        systems={
            "overlayfs": SystemFacts("the kernel's union", "Linux 6.18.0", ours=False, rounds=2),
            "fuse-overlayfs": SystemFacts("fuse-overlayfs", "1.10", ours=False, rounds=2),
            "auto": SystemFacts("unionfuse, its defaults", "0.1.0", ours=True, rounds=2),
        },
        workloads={
            "tar": WorkloadFacts("reading", "packs the tree with tar"),
            "create": WorkloadFacts("writing", "writes 2,000 files"),
        },
        scales={
            "layers": ScaleFacts("mounts many layers", {"mount_ms": "to mount, ms"}),
            "mounts": ScaleFacts("runs containers", {"mount_ms": "ms", "pss_mib": "MiB"}),
        },
        results=results,
        points=[
            *(
                Point("layers", system, at, {"mount_ms": at * 2.0}, {"mount_ms": 1.0},
                      {"mount_ms": at * 3.0})
                for system in ("overlayfs", "auto")
                for at in (1, 400)
            ),
            Point("mounts", "auto", 10, *(dict.fromkeys(names, n) for n in (2.0, 1.0, 3.0))),
        ],
    )  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _fonts(tmp_path_factory):
    """Have matplotlib open its fonts, which it keeps open, before a test looks at open files."""
    draw_all(make_record(), tmp_path_factory.mktemp("fonts"))


@pytest.fixture
def record() -> Record:
    return make_record()


@pytest.fixture
def other() -> Record:
    """The same measuring once more, to be changed."""
    return make_record()
