"""Stop containers and remove them."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from unionfuse.container import processes
from unionfuse.container.create import DEFAULT_STOP_SIGNAL
from unionfuse.container.errors import ContainerError, NoSuchContainer, WrongState
from unionfuse.container.finish import end_strays, recover
from unionfuse.container.signals import parse_signal
from unionfuse.container.state import RUNNING

if TYPE_CHECKING:
    from unionfuse.container.state import Container, Containers

DEFAULT_SECONDS = 10.0
_ENDING_SECONDS = 20.0


def stop(containers: Containers, container: Container, seconds: float) -> None:
    """Ask a container to end by its stop signal, and kill it if it does not within `seconds`.

    Returns when it is put away; one that does not run is left alone.

    Raises:
        ContainerError: if it can not be ended.
    """
    state = recover(containers, container)
    if state.status != RUNNING:
        return
    number = parse_signal(container.record.config.stop_signal or DEFAULT_STOP_SIGNAL)
    if seconds > 0:
        processes.send(state.init, number)
    if seconds <= 0 or not processes.wait(state.init, seconds):
        processes.send(state.init, signal.SIGKILL)
    if not processes.wait(state.init, _ENDING_SECONDS):
        raise ContainerError(f"{container.record.name} does not end")
    wait_until_put_away(containers, container)


def wait_until_put_away(containers: Containers, container: Container) -> None:
    """Wait until conmon's last command is done with a container that has ended."""
    deadline = time.monotonic() + _ENDING_SECONDS
    try:
        while recover(containers, container).status == RUNNING:
            if time.monotonic() > deadline:
                raise ContainerError(f"{container.record.name} has ended and is not put away")
            time.sleep(0.01)
    except NoSuchContainer:  # it was to be removed
        return


def end(containers: Containers, container: Container, *, force: bool) -> None:
    """End a container that is to be removed.

    Raises:
        WrongState: if it runs, and that is not to be ended by `force`.
    """
    try:
        if recover(containers, container).status != RUNNING:
            return
        if not force:
            raise WrongState(
                f"{container.record.name} is running: stop it first, or remove it with --force"
            )
        stop(containers, container, 0)
    except NoSuchContainer:
        if not force:
            raise


def remove(containers: Containers, container: Container, *, force: bool) -> None:
    """Remove a container that does not run, with all that it has written.

    Preconditions:
        The process may handle files of all ids (`namespaces.enter_users`).

    Raises:
        WrongState: if it was started meanwhile.
        NoSuchContainer: if it was removed meanwhile; no failure with `force`.
    """
    try:
        with container.lock():
            if container.state().status == RUNNING:
                raise WrongState(f"{container.record.name} was just started")
            end_strays(container)
            containers.remove(container)
    except NoSuchContainer:
        if not force:
            raise
