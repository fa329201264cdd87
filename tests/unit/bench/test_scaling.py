"""What grows with the number of something."""

from __future__ import annotations

from bench.errors import BenchError
from bench.scaling import Scale, measure, summary
from bench.start import libraries_in
from bench.systems import BARE, OVERLAYFS

LDD = """\
\tlinux-vdso.so.1 (0x00007ffd2f5f2000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0c6f400000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f0c6f6b2000)
"""


def scale(sample) -> Scale:
    return Scale(
        name="things", does="", numbers=(1, 2), quick=(1,), rounds=3, quick_rounds=1,
        prepare=lambda directory, number: [directory] * number, sample=sample, figures={"ms": "ms"},
    )  # fmt: skip


def test_a_point_is_the_median_with_its_extremes():
    point = summary("things", "auto", 5, [{"ms": 9.0}, {"ms": 1.0}, {"ms": 2.0}])
    assert (point.figures, point.least, point.most) == ({"ms": 2.0}, {"ms": 1.0}, {"ms": 9.0})


def test_every_system_is_measured_with_every_number(tmp_path):
    def sample(_system, lowers, _base, number):
        return {"ms": float(len(lowers) * number)}

    points, failures = measure(scale(sample), [BARE, OVERLAYFS], [1, 2], 3, tmp_path, str)
    assert [(point.system, point.at, point.figures["ms"]) for point in points] == [
        ("bare", 1, 1.0), ("overlayfs", 1, 1.0), ("bare", 2, 4.0), ("overlayfs", 2, 4.0)
    ]  # fmt: skip
    assert failures == []


def test_what_fails_once_has_no_figures_and_says_why_without_a_path(tmp_path):
    def sample(system, _lowers, base, _number):
        if system is BARE:
            raise BenchError(f"{base} is\nbroken")
        return {"ms": 1.0}

    points, failures = measure(scale(sample), [BARE, OVERLAYFS], [1], 3, tmp_path, str)
    assert [point.system for point in points] == ["overlayfs"]
    assert [failure.what for failure in failures] == ["1 things: DIR/runs/bare-things is broken"]


def test_the_libraries_of_a_program_are_found_with_their_loader():
    assert libraries_in(LDD) == ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
    assert libraries_in("\tnot a dynamic executable\n") == []
