"""What is told of a container: one line of a list, or all of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from unionfuse.container import bundle
from unionfuse.container.errors import ContainerError
from unionfuse.container.names import SHORT
from unionfuse.container.state import CREATED, RUNNING

if TYPE_CHECKING:
    from unionfuse.container.state import Container, State

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def command_of(container: Container) -> list[str]:
    """Return the command line of its first process."""
    try:
        return bundle.arguments(container.record.config, container.record.options)
    except ContainerError:
        return []


def status_of(state: State) -> str:
    """Return in words what it is doing, and since when."""
    if state.status == RUNNING:
        return f"Up {ago(state.started)}"
    if state.status == CREATED:
        return "Created"
    return f"Exited ({state.exit_code}) {ago(state.finished)} ago"


def ago(moment: int) -> str:
    """Return how long ago that was: nanoseconds since 1970."""
    seconds = max(0, time.time_ns() - moment) // 10**9
    for size, name in _UNITS:
        if seconds >= size:
            count = seconds // size
            return f"{count} {name}{'s' if count != 1 else ''}"
    return "less than a second"


def timestamp(moment: int) -> str | None:
    """Return a moment as RFC 3339 has it; None for never."""
    if not moment:
        return None
    whole, rest = divmod(moment, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{rest:09}Z"


def summary(container: Container, state: State) -> dict[str, Any]:
    """Return what a list tells of it."""
    record = container.record
    return {
        "id": record.id,
        "name": record.name,
        "image": record.image,
        "image_id": record.image_id,
        "command": command_of(container),
        "created": timestamp(record.created),
        "status": state.status,
        "exit_code": state.exit_code,
        "pid": state.init.pid if state.status == RUNNING and state.init else 0,
    }


def details(container: Container, state: State) -> dict[str, Any]:
    """Return all that is known of it."""
    record = container.record
    options: dict[str, Any] = msgspec.to_builtins(record.options)
    return summary(container, state) | {
        "short_id": record.id[:SHORT],
        "hostname": record.hostname,
        "started": timestamp(state.started),
        "finished": timestamp(state.finished),
        "error": state.error,
        "conmon_pid": state.conmon.pid if state.status == RUNNING and state.conmon else 0,
        "daemon_pid": state.daemon.pid if state.status == RUNNING and state.daemon else 0,
        "options": options,
        "config": msgspec.to_builtins(record.config),
        "volumes": msgspec.to_builtins(record.volumes),
        "layers": list(record.lowers),
        "init_layer": str(container.init_layer),
        "upper": str(container.upper),
        "workdir": str(container.workdir),
        "merged": str(container.merged),
        "log": str(container.log),
    }
