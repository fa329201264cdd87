"""Run unionmount-testsuite (amir73il/unionmount-testsuite) on mounts that mount(8) makes.

It runs in a mount namespace of its own, in which the helpers of unionfuse lie where mount(8) and
umount(8) look for them. It stops at the first test that fails, and is then run on from the next.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.conformance.results import Result
from tests.support.sessions import KERNEL_PASSTHROUGH, PYFUSE3

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sessions import Session

SUITE = "unionmount"
RUN_SECONDS = 1800
_ONLY_WITHOUT_REDIRECTS = "rename-exdev"
_SUBTEST = re.compile(r"^TEST \S+?:\d+:", re.MULTILINE)
_STARTED = re.compile(r"^\*\*\* \./run .*?(\S+)$", re.MULTILINE)

# What the shell does first, in the namespace: $1 is a scratch directory.
_NAMESPACE = """
mkdir $1/upper $1/work $1/lower $1/base
mount -t overlay -o lowerdir=/sbin,upperdir=$1/upper,workdir=$1/work overlay "$(realpath /sbin)"
for verb in mount umount; do
    printf '#!%s\\nfrom unionfuse.cli.%s_helper import main; main()\\n' "$2" $verb \\
        > /sbin/$verb.fuse.unionfuse
    chmod 755 /sbin/$verb.fuse.unionfuse
done
chmod 755 $1 $1/base
if [ "$3" = several ]; then
    mount -t tmpfs tmpfs $1/lower
    export UNIONMOUNT_LOWERDIR=$1/lower
fi
mnt=$1/base/m
shift 3
passed=0
"$@" || passed=1
umount $mnt || true  # it stays mounted; the daemon would keep the namespace, and itself
exit $passed
"""


@dataclass(frozen=True)
class Variant:
    """A way to run the suite.

    `--verify` looks for the copy in the upper when a file has been opened to be written. So it can
    only be run where an open is a request; with cached data of the kernel session the copy comes
    with the first write (docs/explanation/semantics.md).

    Attributes:
        arguments: of `run`.
        several_filesystems: the lowest layer lies on a filesystem of its own.
    """

    arguments: tuple[str, ...]
    several_filesystems: bool = False

    def fits(self, session: Session) -> bool:
        """Tell whether it can be run over a session."""
        return "--verify" not in self.arguments or session in (PYFUSE3, KERNEL_PASSTHROUGH)

    @property
    def name(self) -> str:
        """How results call it."""
        return " ".join(self.arguments) + (" xdev" if self.several_filesystems else "")


VARIANTS = (
    Variant(("--ov",)),
    Variant(("--ov", "--verify")),
    Variant(("--ov=10", "--verify")),
    Variant(("--ov=10", "--maxfs=5"), several_filesystems=True),
    Variant(("--ov", "--verify"), several_filesystems=True),
    Variant(("--ov=10", "--maxfs=5", "--verify"), several_filesystems=True),
)


def test_names(suite: Path) -> list[str]:
    """Return the tests that `run` has, in its order, for a union that renames directories."""
    names: list[str] = []
    for node in ast.walk(ast.parse((suite / "run").read_text())):
        match node:
            case ast.Assign(targets=[ast.Name("tests")], value=ast.List(elts)):
                names[:0] = [item.value for item in elts if isinstance(item, ast.Constant)]
            case ast.AugAssign(target=ast.Name("tests"), value=ast.List(elts)):
                names += [item.value for item in elts if isinstance(item, ast.Constant)]
    return [name for name in names if name != _ONLY_WITHOUT_REDIRECTS]


def run(suite: Path, variant: Variant, session: Session, scratch: Path) -> Result:
    """Run one variant over one session; `scratch` is a directory that does not exist yet."""
    result = Result(SUITE, f"{variant.name}, {session.name}")
    left = test_names(suite)
    while left:
        printed = _run(suite, variant, session, scratch, left)
        shutil.rmtree(scratch)
        started = [name for name in _STARTED.findall(printed) if name in left]
        result.passed += len(_SUBTEST.findall(printed))
        if "the whole suite has passed" in printed:
            break
        failed = started[-1] if started else left[0]
        result.passed -= 1
        result.failures[failed] = printed.strip().splitlines()[-1]
        left = left[left.index(failed) + 1 :]
    return result


def _run(suite: Path, variant: Variant, session: Session, scratch: Path, names: list[str]) -> str:
    scratch.mkdir(parents=True)
    select, *flags = variant.arguments
    command = ["./run", select, "--fuse=unionfuse", *flags, *names]
    options = f"rw,x-wait,session={session.session}" + (f",io={session.io}" if session.io else "")
    filesystems = "several" if variant.several_filesystems else "one"
    whole = ["unshare", "--mount", "--propagation=private", "sh", "-euc", _NAMESPACE, "sh"]
    whole += [str(scratch), sys.executable, filesystems, *command]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path) or os.getcwd(),
        "UNIONMOUNT_BASEDIR": str(scratch / "base"),
        "UNIONMOUNT_MNTOPTIONS": options,
    }
    done = subprocess.run(
        whole, cwd=suite, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", timeout=RUN_SECONDS, check=False,
    )  # fmt: skip
    passed = "\nthe whole suite has passed" if done.returncode == 0 else ""
    return done.stdout + passed
