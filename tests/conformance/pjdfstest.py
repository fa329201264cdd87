"""Run pjdfstest (pjd/pjdfstest) in a directory, and read what it prints (TAP)."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.conformance.results import Result

if TYPE_CHECKING:
    from pathlib import Path

SUITE = "pjdfstest"
FILE_SECONDS = 300
_OUTCOME = re.compile(r"^(not ok|ok) (\d+)(.*)$", re.MULTILINE)
_PLAN = re.compile(r"^1\.\.(\d+)", re.MULTILINE)


def build(checkout: Path, directory: Path) -> Path:
    """Copy the checkout to `directory` and build its program there, if it is not built."""
    copy = directory / "pjdfstest"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git"))
    copy.chmod(0o755)
    if not (copy / "pjdfstest").exists():
        for command in (["autoreconf", "-ifs"], ["./configure"], ["make", "pjdfstest"]):
            subprocess.run(command, cwd=copy, check=True, capture_output=True, timeout=300)
    return copy


def run(suite: Path, directory: Path, variant: str) -> Result:
    """Run every file of the suite with `directory` as the current one, as root."""
    result = Result(SUITE, variant)
    for file in sorted((suite / "tests").glob("*/*.t")):
        name = f"{file.parent.name}/{file.name}"
        done = subprocess.run(
            ["sh", file], cwd=directory, capture_output=True, text=True, timeout=FILE_SECONDS,
            check=False,
        )  # fmt: skip
        _read(done.stdout, name, result)
    return result


def _read(printed: str, name: str, result: Result) -> None:
    outcomes = {int(number): (what, how) for what, number, how in _OUTCOME.findall(printed)}
    plan = _PLAN.search(printed)
    for number in range(1, 1 + (int(plan[1]) if plan else max(outcomes, default=0))):
        what, how = outcomes.get(number, ("not ok", " did not run"))
        if what == "ok" or "# TODO" in how:
            result.passed += 1
        else:
            result.failures[f"{name}:{number}"] = how.strip(" -#") or "not ok"
    if plan is None:
        result.failures[name] = "tells no number of tests"
