"""Run a container from the first step to the last, seen from the terminal of its user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unionfuse.container import start
from unionfuse.container.attach import Attachment
from unionfuse.container.finish import finish, put_away

if TYPE_CHECKING:
    from unionfuse.container.state import Container, Containers, State

# What a container that its user has left returns; docker's client does the same.
_DETACHED = 0


def run_detached(container: Container) -> None:
    """Start a container and leave it to conmon.

    Preconditions:
        See `start`.

    Raises:
        ContainerError: if it can not be started; a container that is to be removed is not yet.
    """
    with container.lock():
        before = container.state()
        start.prepare(container)
        _begin(container, before)


def run_attached(containers: Containers, container: Container, *, takes_input: bool) -> int:
    """Start a container, be its terminal until it ends, put it away; return its exit code.

    Preconditions:
        See `start`.

    Raises:
        ContainerError: if it can not be started.
    """
    options = container.record.options
    with container.lock():
        before = container.state()
        state = start.prepare(container, attended_by=os.getpid())
        attachment = Attachment(
            container.path, state.init, has_tty=options.tty, takes_input=takes_input
        )

    def begin() -> None:
        with container.lock():
            _begin(container, before)

    if not attachment.run(begin):
        return _DETACHED
    return finish(containers, container).exit_code


def _begin(container: Container, before: State) -> None:
    try:
        start.begin(container)
    except BaseException as err:
        put_away(container, start.replace_error(before, str(err)))
        raise
