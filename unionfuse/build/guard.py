"""What puts a build away whose process was killed.

Such a process can end nothing itself: neither what a RUN has started, which the runtime has put
into a session of its own, nor the daemons of its mounts. So a child waits for its end, and then
ends what it finds of the build, takes down its mounts and removes its directory. It has the lock
of that until then, and is told to go when a build ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

from unionfuse.container import processes, rootfs
from unionfuse.container import runtime as oci
from unionfuse.container.errors import ContainerError
from unionfuse.image.store import lease
from unionfuse.syscalls import descriptors

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

    from unionfuse.container.processes import Process

_LOOKS = 5  # what was just about to start or to mount when the build was killed has come by then
_LOOK_SECONDS = 0.1
_SECONDS = 10.0


class Guard:
    """The child."""

    def __init__(self, directory: Path, lock: int) -> None:
        """Guard the build that this process does in `directory`.

        Args:
            directory: with `N/merged` and `N/run` for each step.
            lock: a descriptor that is locked as long as the directory is in use.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _watch(directory, lock, parent)

    def dismiss(self) -> None:
        """Let it go: nothing of the build is left."""
        os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def put_away(directory: Path) -> None:
    """End what is left of a build, here in its namespaces, and remove its directory."""
    for look in range(_LOOKS):
        if look:
            time.sleep(_LOOK_SECONDS)
        for state in directory.glob("*/run"):
            _end_containers(state)
        for merged in directory.glob("*/merged"):
            with contextlib.suppress(ContainerError):
                rootfs.unmount(merged, None)
    with contextlib.suppress(OSError):
        lease.remove_tree(directory)


def _end_containers(state: Path) -> None:
    """End the containers of which a runtime has its state in a directory, and the runtime."""
    with contextlib.suppress(ContainerError):
        runtime = oci.Runtime.find(state)
        for process in processes.naming(os.path.basename(runtime.path), str(state)):
            # The runtime first: it must not start what is only being made.
            for each in (process, *processes.children(process)):
                _kill(each)
        for container_id in os.listdir(state):
            runtime.run("delete", "--force", container_id, check=False)
            oci.remove_cgroups(container_id)


def _kill(process: Process) -> None:
    if processes.send(process, signal.SIGKILL):
        processes.wait(process, _SECONDS)


def _watch(directory: Path, lock: int, parent: int) -> NoReturn:
    try:
        os.setsid()  # who kills the build may mean all of its group, but does not mean this one
        pidfd = os.pidfd_open(parent)
        descriptors.silence()
        descriptors.close_all_but(lock, pidfd)
        if os.getppid() == parent:
            select.select([pidfd], [], [])
        put_away(directory)
    except ProcessLookupError:  # it had ended before this began: nothing was started
        pass
    finally:
        os._exit(0)
