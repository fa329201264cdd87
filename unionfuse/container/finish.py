"""What is done when a container has ended: by conmon's last command, or by whoever finds it so.

Run as a program, `python -m unionfuse.container.finish ROOT ID`, it is that last command; it is in
the container's namespaces then.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from unionfuse.container import processes, rootfs
from unionfuse.container.errors import NoSuchContainer
from unionfuse.container.runtime import remove_cgroups
from unionfuse.container.state import EXITED, LOST, RUNNING, Container, Containers, State

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECONDS = 10.0
_EXIT_FILE_SECONDS = 2.0
_FINISHING_SECONDS = 3.0


def put_away(container: Container, final: State) -> None:
    """Take down what is left of a run, here in its namespaces, and write the final state.

    Preconditions:
        The caller has the lock, and is where the mount is.
    """
    state = container.state()
    if processes.send(state.init, signal.SIGKILL):
        processes.wait(state.init, _SECONDS)
    rootfs.unmount(container.merged, state.daemon)
    # All else that the runtime's own `delete` would do: what it knows is in run/.
    remove_cgroups(container.id)
    container.save(final)


def finish(containers: Containers, container: Container, started: int) -> State:
    """Put away a container that has ended, here in its namespaces; return its last state.

    A container that is to be removed then is. `started` names the run: of a later one, which
    another command may have begun meanwhile, nothing is touched.
    """
    with container.lock():
        state = container.state()
        if state.status != RUNNING or state.started != started:
            return state
        final = ended(container, state)
        put_away(container, final)
        if container.record.options.remove:
            containers.remove(container)
        return final


def recover(containers: Containers, container: Container) -> State:
    """Return the state of a container as it is, from anywhere.

    One of which conmon or the daemon were killed, or the machine went down, is ended: its
    processes are, and with them the mount, which is in no other namespace.

    Raises:
        NoSuchContainer: if it is gone.
    """
    state = _settled(container)
    if state.status != RUNNING or _is_whole(state):
        return state
    try:
        with container.lock(wait=False):
            state = container.state()
            if state.status != RUNNING or _is_whole(state):
                return state
            if processes.send(state.init, signal.SIGKILL):
                processes.wait(state.init, _SECONDS)
            final = ended(container, state)
            end_strays(container)
            remove_cgroups(container.id)
            container.save(final)
    except BlockingIOError:  # a command is at work on it
        return state
    if container.record.options.remove:
        remove_ended(containers, container)
    return final


def end_strays(container: Container) -> None:
    """End what is left of a run whose command was killed in the midst of it.

    Preconditions:
        The caller has the lock, and the container does not run.
    """
    files = container.pid_files
    if not (files.daemon.exists() or (container.path / "state.json").exists()):
        return  # nothing was ever begun
    # conmon may not have come to write its file, but it has the id on its command line
    monitors = [*processes.naming("conmon", container.id), processes.from_file(files.conmon)]
    started = [child for each in monitors if each for child in processes.children(each)]
    for stray in (processes.from_file(files.init), *started, *monitors):
        if processes.send(stray, signal.SIGKILL):
            processes.wait(stray, _SECONDS)
    processes.end(processes.from_file(files.daemon), _SECONDS)  # writes what it has
    for path in files:
        path.unlink(missing_ok=True)


def _settled(container: Container) -> State:
    """Return the state; if the container has just ended, wait a little for who puts it away."""
    deadline = time.monotonic() + _FINISHING_SECONDS
    while True:
        state = container.state()
        if state.status != RUNNING or _is_whole(state) or time.monotonic() > deadline:
            return state
        has_just_ended = processes.is_alive(state.conmon) or container.exit_file.exists()
        if processes.is_alive(state.init) or not has_just_ended:
            return state
        time.sleep(0.01)


def remove_ended(containers: Containers, container: Container) -> None:
    """Remove a container that has ended, if nobody else has done so."""
    with contextlib.suppress(NoSuchContainer, PermissionError), container.lock():
        if container.state().status != RUNNING:
            containers.remove(container)


def ended(container: Container, state: State) -> State:
    """Return the state of a container that has ended, with the exit code that conmon has seen."""
    code = exit_code(container, state)
    error = ""
    if code is None:
        code, error = LOST, "conmon or the mount's daemon was killed, or the machine went down"
    return State(
        status=EXITED,
        exit_code=code,
        started=state.started,
        finished=time.time_ns(),
        error=error,
    )


def exit_code(container: Container, state: State) -> int | None:
    """Return the exit code; None if conmon is gone and has not told it."""
    deadline = time.monotonic() + _EXIT_FILE_SECONDS
    while True:
        alive = processes.is_alive(state.conmon)
        with contextlib.suppress(OSError, ValueError):
            return int(container.exit_file.read_text())
        if not alive or time.monotonic() > deadline:
            return None
        time.sleep(0.001)


def _is_whole(state: State) -> bool:
    """Tell whether all that a running container needs is there."""
    return all(map(processes.is_alive, (state.daemon, state.conmon, state.init)))


def main(arguments: Sequence[str]) -> int:
    """Be conmon's last command."""
    root, container_id, started = arguments
    containers = Containers(Path(root))
    with contextlib.suppress(NoSuchContainer):
        finish(containers, Container(containers.path / container_id), int(started))
    return 0


if __name__ == "__main__":
    gc.disable()
    os._exit(main(sys.argv[1:]))
