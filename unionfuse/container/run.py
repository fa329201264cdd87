"""Run a container from the first step to the last, seen from the terminal of its user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unionfuse.container import child, namespaces, start
from unionfuse.container.errors import ContainerError
from unionfuse.container.finish import finish, put_away, remove_ended

if TYPE_CHECKING:
    from unionfuse.container.mounter import Mounter
    from unionfuse.container.state import Container, Containers, State

# What a container that its user has left returns; docker's client does the same.
_DETACHED = 0


def run_detached(
    containers: Containers, container: Container, ready: Mounter | None = None
) -> None:
    """Start a container and leave it to conmon.

    Preconditions:
        See `start`.

    Raises:
        ContainerError: if it can not be started; one that is to be removed when it ends is.
    """
    try:
        with container.lock():
            before = container.state()
            start.prepare(container, ready=ready)
            _begin(container, before)
    except ContainerError:
        _remove_failed(containers, container)
        raise


def start_in_child(containers: Containers, container: Container) -> None:
    """Start a container and leave it to conmon, from a process that stays where it is.

    Raises:
        ContainerError: if it can not be started.
    """

    def begin() -> None:
        namespaces.enter()
        run_detached(containers, container)

    failure = child.begin(begin, ContainerError).failure()
    if failure:
        raise ContainerError(failure)


def run_attached(
    containers: Containers,
    container: Container,
    *,
    takes_input: bool,
    ready: Mounter | None = None,
) -> int:
    """Start a container, be its terminal until it ends, put it away; return its exit code.

    Preconditions:
        See `start`.

    Raises:
        ContainerError: if it can not be started; one that is to be removed when it ends is.
    """
    from unionfuse.container.attach import Attachment  # not for those that are left to conmon

    options = container.record.options

    def begin() -> None:
        with container.lock():
            _begin(container, before)

    try:
        with container.lock():
            before = container.state()
            state = start.prepare(container, attended_by=os.getpid(), ready=ready)
            attachment = Attachment(
                container.path, state.init, has_tty=options.tty, takes_input=takes_input
            )
        if not attachment.run(begin):
            return _DETACHED
    except ContainerError:
        _remove_failed(containers, container)
        raise
    return finish(containers, container, state.started).exit_code


def _begin(container: Container, before: State) -> None:
    try:
        start.begin(container)
    except BaseException as err:
        put_away(container, start.replace_error(before, str(err)))
        raise


def _remove_failed(containers: Containers, container: Container) -> None:
    if container.record.options.remove:
        remove_ended(containers, container)
