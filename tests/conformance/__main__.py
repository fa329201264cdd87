"""Run the suites of others from their checkouts, as root, over the ways in which a mount is served.

    python -m tests.conformance --pjdfstest DIR --unionmount DIR
    python -m tests.conformance --unionmount DIR --session kernel --io passthrough

pjdfstest is judged beside the filesystem that the layers are on: what fails there is no failure of
the union. What may fail all the same is in known_failures.toml, with its cause.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conformance import pjdfstest, unionmount
from tests.conformance.results import judge, known_failures
from tests.support.mounts import Layers, union_mount
from tests.support.sessions import ALL_SESSIONS, Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.results import Result


def main() -> int:
    """Run what was asked for; return 0 if nothing failed that is not known to."""
    options = _parse()
    if os.geteuid() != 0:
        sys.exit("conformance: the suites mount, and change owners: run them as root")
    sessions = [Session(options.session, options.io)] if options.session else list(ALL_SESSIONS)
    base = Path(tempfile.mkdtemp(prefix="unionfuse-conformance.", dir=options.dir))
    base.chmod(0o755)
    wrong: list[str] = []
    known = known_failures()
    for result in _results(options, sessions, base):
        lines = judge(result, known)
        accepted = len(result.failures) - sum(" failed: " in line for line in lines)
        tail = f", {accepted} known to fail" if accepted else ""
        print(f"{result.suite} {result.variant}: {result.passed} passed{tail}", flush=True)
        for line in lines:
            print(f"    {line}", flush=True)
        wrong += lines
    base.rmdir()
    return 1 if wrong else 0


def _results(options: argparse.Namespace, sessions: list[Session], base: Path) -> Iterator[Result]:
    begin = time.monotonic()
    if options.pjdfstest:
        yield from _pjdfstest(options.pjdfstest.resolve(), sessions, base)
    if options.unionmount:
        for variant in unionmount.VARIANTS:
            for session in filter(variant.fits, sessions):
                suite = options.unionmount.resolve()
                yield unionmount.run(suite, variant, session, base / "union")
    print(f"{time.monotonic() - begin:.0f} s in all", flush=True)


def _pjdfstest(checkout: Path, sessions: list[Session], base: Path) -> Iterator[Result]:
    with tempfile.TemporaryDirectory(dir=base) as scratch:
        Path(scratch).chmod(0o755)
        suite = pjdfstest.build(checkout, Path(scratch))
        plain = Path(scratch) / "plain"
        plain.mkdir()
        floor = pjdfstest.run(suite, plain, "the filesystem of the layers")
        print(f"{floor.suite} {floor.variant}: {floor.passed} passed, {len(floor.failures)} failed")
        for session in sessions:
            os.environ.update(session.environment)
            layers = Layers.create(Path(scratch) / session.name, 2)
            with union_mount(layers) as mountpoint:
                result = pjdfstest.run(suite, mountpoint, session.name)
            result.failures = {
                test: how for test, how in result.failures.items() if test not in floor.failures
            }
            yield result


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pjdfstest", type=Path, metavar="DIR", help="a checkout of it")
    parser.add_argument("--unionmount", type=Path, metavar="DIR", help="a checkout of it")
    parser.add_argument("--session", help="as of unionfuse mount; all by default")
    parser.add_argument("--io", help="as of unionfuse mount")
    parser.add_argument("--dir", default="/var/tmp", help="where the layers are (/var/tmp)")
    options = parser.parse_args()
    if not options.pjdfstest and not options.unionmount:
        parser.error("give a checkout: --pjdfstest DIR, --unionmount DIR")
    for checkout in (options.pjdfstest, options.unionmount):
        if checkout and not checkout.is_dir():
            parser.error(f"no directory: {checkout}")
    return options


if __name__ == "__main__":
    sys.exit(main())
