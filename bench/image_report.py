"""The page of the documentation that says what images take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.image_cases import OURS, PROGRAMS

if TYPE_CHECKING:
    from bench.images import Case, Report


def written(report: Report) -> str:
    """Return the report as a page of the documentation."""
    facts = report.facts
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [
        "# Images on unionfuse, podman, and skopeo with umoci",
        "",
        f"A Debian 12 with Python and gcc: {report.image}. Medians of {report.rounds} "
        f"{'round' if report.rounds == 1 else 'rounds'} in which the programs took turns, after "
        "one to warm up; as root, podman on the kernel's overlayfs, the registry docker's on "
        "loopback, everything in the page cache, and nothing to be written when a time begins.",
        "",
        f"Kernel {facts['kernel']}, {facts['processors']} processors, {facts['filesystem']}, "
        f"Python {facts['python']}; {versions}.",
        f"Load average of one minute: {report.loads[0]:.1f} before, {report.loads[1]:.1f} after.",
        "",
        "| | | seconds | CPU seconds | peak MiB | unionfuse / it: seconds | CPU | memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [row for case in report.cases for row in _rows(case)]
    lines += [
        "",
        "CPU seconds are those of the command with all its processes, without the registry's; peak "
        "MiB is the most that one of its processes had at once in any round. For skopeo and umoci "
        "they are of one command after the other.",
        "",
        "- **pull and unpack**: unionfuse brings a layer to disk before it has its name, "
        "which is in its time.",
        "- **unpack from local blobs** is `unionfuse image unpack REF DIR`, a directory a layer, "
        "and `umoci unpack`, one for all.",
        "- **load an OCI archive** is `unionfuse image load` and `podman load` of the same file "
        "into a store without the image.",
        "- **commit**: unionfuse compresses the new layer when it commits, podman when it pushes; "
        "so the sum says more than either.",
        "",
        "Every result is checked: ids and digests after each pull, load and push, every entry of "
        "the unpacked trees against that of umoci, every entry of one pushed layer against the "
        "other.",
        "",
        "Made by `make bench-images`.",
        "",
    ]
    return "\n".join(lines)


def _rows(case: Case) -> list[str]:
    ours = case.median(OURS)
    rows: list[str] = []
    for program in PROGRAMS:
        found = case.median(program)
        if found is None:
            continue
        name = "" if rows else case.name
        cells = [name, program, f"{found.seconds:.2f}", f"{found.cpu:.2f}"]
        cells.append(f"{found.memory_mib:.0f}")
        if ours is None or program == OURS:
            cells += ["", "", ""]
        else:
            cells += [
                f"{ours.seconds / found.seconds:.2f}",
                f"{ours.cpu / found.cpu:.2f}",
                f"{ours.memory_mib / found.memory_mib:.2f}",
            ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows
