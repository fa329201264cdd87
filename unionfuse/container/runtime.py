"""The OCI runtime: crun or runc, which starts a container's processes and takes it down again."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path

from unionfuse.container import namespaces
from unionfuse.container.errors import NoSuchProgram, NotExecutable, RuntimeFailed
from unionfuse.container.programs import find_program
from unionfuse.record import record
from unionfuse.syscalls import mount as sys_mount

ENVIRONMENT = "UNIONFUSE_RUNTIME"
CGROUP = "/unionfuse"  # below the root of each hierarchy
_KNOWN = ("crun", "runc")
_SECONDS = 60
_UNIFIED = Path("/sys/fs/cgroup/unified")

_NOT_FOUND = re.compile(r"executable file .*not found|No such file|not found in \$PATH")
_NOT_PERMITTED = re.compile(  # crun says the last of a directory
    r"permission denied|exec format error|is a directory|open executable: Operation not permitted",
    re.IGNORECASE,
)


@record
class Runtime:
    """A runtime, and where it keeps its own state of one container.

    Attributes:
        path: of the program.
        root: a directory that is made anew with each start of the container.
        options: before every command.
    """

    path: str
    root: Path
    options: tuple[str, ...] = ()

    @classmethod
    def find(cls, root: Path) -> Runtime:
        """Return the best one that is installed; $UNIONFUSE_RUNTIME names another.

        Raises:
            RuntimeFailed: if there is none.
        """
        wanted = os.environ.get(ENVIRONMENT)
        path = find_program(*((wanted,) if wanted else _KNOWN))
        if path is None:
            raise RuntimeFailed(f"no OCI runtime: install {wanted or ' or '.join(_KNOWN)}")
        options: tuple[str, ...] = ()
        if os.path.basename(path) == "crun" and namespaces.in_user_namespace():
            # cgroups are the machine's, and none was given to us
            options = ("--cgroup-manager=disabled",)
        return cls(path, root, options)

    @property
    def arguments(self) -> list[str]:
        """What stands between the program and its command."""
        return ["--root", str(self.root), *self.options]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run a command of the runtime.

        Raises:
            RuntimeFailed: if it fails, with what it says.
        """
        done = subprocess.run(
            [self.path, *self.arguments, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_SECONDS,
        )
        if check and done.returncode:
            raise failure(done.stderr.decode(errors="replace"))
        return done


def failure(said: str) -> RuntimeFailed:
    """Return the error for what a runtime says, as crun or runc do."""
    lines = [line for line in said.splitlines() if line.strip()]
    text = re.sub(r'^time=".*?" level=\w+ msg="(.*)"$', r"\1", lines[-1]) if lines else "no word"
    text = re.sub(r"^\d{4}-\d\d-\d\dT\S+: ", "", text.strip())
    if _NOT_FOUND.search(text):
        return NoSuchProgram(text)
    if _NOT_PERMITTED.search(text):
        return NotExecutable(text)
    return RuntimeFailed(text)


def prepare_cgroups() -> None:
    """In our own mounts, leave out what crun takes offence at.

    It refuses to work where controllers are spread over both versions of cgroups ("hybrid"). Those
    that limit containers are in version 1 then, and the few in version 2 are not missed.
    """
    if os.geteuid() == 0 and not namespaces.in_user_namespace() and _UNIFIED.is_mount():
        sys_mount.umount2(os.fsencode(_UNIFIED), sys_mount.MNT_DETACH)


def has_cgroup_v2() -> bool:
    """Tell whether all cgroups are of version 2."""
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def remove_cgroups(container_id: str) -> None:
    """Remove the cgroups of a container that has ended, which its runtime could not do."""
    for path in [*Path("/sys/fs/cgroup").glob(f"*{CGROUP}/{container_id}")]:
        with contextlib.suppress(OSError):
            path.rmdir()
    with contextlib.suppress(OSError):
        Path(f"/sys/fs/cgroup{CGROUP}/{container_id}").rmdir()
