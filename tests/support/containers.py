"""Run `unionfuse` on containers, as root or as a plain user, in a house of `clients`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.clients import UID, USER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.clients import House

_SERVER = b"unionfuse-forkserver\0"
REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT = 60.0


@dataclass(frozen=True)
class Tool:
    """`unionfuse` of one user, with a store of its own.

    Attributes:
        base: a directory of the user's.
        is_root: whether it runs as root.
        more: variables of its environment.
    """

    house: House
    base: Path
    is_root: bool
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The store."""
        return self.base / "store"

    def command(self, *arguments: str | Path, root: Path | None = None) -> list[str]:
        """Return the command that runs `unionfuse` with these arguments."""
        return self.program(sys.executable, "-m", "unionfuse", *arguments, root=root)

    def program(self, *command: str | Path, root: Path | None = None) -> list[str]:
        """Return the command that runs any command as this user, with this store."""
        environment = {
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "HOME": str(self.base / "home"),
            "XDG_RUNTIME_DIR": str(self.base / "runtime"),
            "PYTHONPATH": str(REPOSITORY),
            "UNIONFUSE_ROOT": str(root or self.root),
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
            "PYTHON_OF_TOOL": str(self.base),  # a fork server of its own: see `processes`
            **self.more,
        }
        who = [] if self.is_root else [
            "setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--inh-caps=-all",
        ]  # fmt: skip
        assigned = [f"{key}={value}" for key, value in environment.items()]
        where = ["env", "-C", str(self.base), "-i", *assigned]
        return self.house.enter(*where, *who, *map(str, command))

    def run(
        self,
        *arguments: str | Path,
        stdin: str = "",
        code: int | None = 0,
        timeout: float = TIMEOUT,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; `code` is the exit code that it has to have, None: any."""
        done = subprocess.run(
            self.command(*arguments, **options),
            input=stdin, capture_output=True, text=True, check=False, timeout=timeout,
        )  # fmt: skip
        if code is not None:
            said = f"{' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}"
            assert done.returncode == code, said
        return done

    def out(self, *arguments: str | Path, **options: Any) -> str:
        """Run a command; return what it prints, without the last newline."""
        return self.run(*arguments, **options).stdout.removesuffix("\n")

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Begin a command, whose output goes to a pipe."""
        return subprocess.Popen(
            self.command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            **options,
        )  # fmt: skip

    def state(self, name: str) -> dict[str, Any]:
        """Return what `inspect` tells of a container."""
        found: list[dict[str, Any]] = json.loads(self.out("inspect", name))
        return found[0]

    def processes(self) -> list[int]:
        """Return the processes that have the store on their command line or in their variables.

        Fork servers are none: they end by themselves when nothing is asked for. Their children
        have their variables.
        """
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                if os.fsencode(self.root) in told and not told.startswith(_SERVER):
                    found.append(int(process.name))
        return found

    def is_clean(self) -> bool:
        """Tell whether no container, and no process or mount of one, is left."""
        return not self.left()

    def left(self) -> list[str]:
        """Return what is left of containers: directories, names, processes, mounts."""
        containers = self.root / "containers"
        names = set(os.listdir(containers)) - {"names"} if containers.exists() else set()
        named = os.listdir(containers / "names") if (containers / "names").exists() else []
        mounts = Path(f"/proc/{self.house.pid}/mountinfo").read_text()
        running = [f"{pid}: {_command_line(pid)}" for pid in self.processes()]
        mounted = [line for line in mounts.splitlines() if str(self.root) in line]
        return [*names, *named, *running, *mounted]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:200]
    except OSError:
        return "gone"


@contextlib.contextmanager
def tool(house: House, name: str, *, is_root: bool, **more: str) -> Iterator[Tool]:
    """Make a directory for a user and yield its `unionfuse`; no container outlives the block.

    Args:
        house: where it runs.
        name: of the directory.
        is_root: whether it runs as root.
        more: variables of its environment.
    """
    base = house.base / name
    for directory in (base, base / "home", base / "runtime"):
        directory.mkdir(mode=0o755)
    if not is_root:
        subprocess.run(["chown", "-R", f"{UID}:{UID}", base], check=True, timeout=30)
    made = Tool(house, base, is_root, more)
    try:
        yield made
    finally:
        ids = made.out("ps", "-aq", code=None).split()
        if ids:
            made.run("rm", "-f", *ids, code=None)
        shutil.rmtree(base, ignore_errors=True)


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it never came: {condition}"
        time.sleep(0.02)
