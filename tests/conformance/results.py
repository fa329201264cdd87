"""What a run of a suite has given, and which failures are known, with their causes."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

KNOWN = Path(__file__).with_name("known_failures.toml")


@dataclass
class Result:
    """One run of one suite.

    Attributes:
        suite: its name.
        variant: how it was run.
        passed: the number of tests that passed.
        failures: what failed, by the suite's own name of the test, and how.
    """

    suite: str
    variant: str
    passed: int = 0
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownFailure:
    """A failure that is accepted.

    Attributes:
        suite: name of the suite.
        variant: that of the run.
        tests: the tests that fail.
        cause: why they fail, and why that is right.
    """

    suite: str
    variant: str
    tests: tuple[str, ...]
    cause: str


def known_failures(path: Path = KNOWN) -> list[KnownFailure]:
    """Read the accepted failures."""
    entries = tomllib.loads(path.read_text()).get("failure", [])
    return [
        KnownFailure(entry["suite"], entry["variant"], tuple(entry["tests"]), entry["cause"])
        for entry in entries
    ]


def judge(result: Result, known: list[KnownFailure]) -> list[str]:
    """Return a line for each test that did not go as it should: one that passes now is one too."""
    expected = {
        test: entry.cause
        for entry in known
        if (entry.suite, entry.variant) == (result.suite, result.variant)
        for test in entry.tests
    }
    lines = [
        f"{test} failed: {how}" for test, how in result.failures.items() if test not in expected
    ]
    lines += [
        f"{test} is said to fail, and does not: {cause}"
        for test, cause in expected.items()
        if test not in result.failures
    ]
    return lines
