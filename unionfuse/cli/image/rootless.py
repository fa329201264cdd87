"""Be root of a user namespace with the ids that /etc/subuid grants, as `podman unshare` is.

There owners are kept for real: files can be given to the ids that are mapped. A command that needs
this is run again in the namespace. Without grants, or without newuidmap(1), it stays as it is,
and owners go to an attribute.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from unionfuse.cli.errors import Failure
from unionfuse.container import namespaces
from unionfuse.container.errors import ContainerError

if TYPE_CHECKING:
    from unionfuse.container.namespaces import Maps

_INSIDE = "UNIONFUSE_USERNS"  # set in the namespace, where a second one would not help


def available() -> Maps | None:
    """Return the ids that this user can have; None for root, and where there are none."""
    if os.geteuid() == 0 or os.environ.get(_INSIDE):
        return None
    return namespaces.granted()


def enter(maps: Maps, *, with_mounts: bool = False) -> None:
    """Become root of a new user namespace.

    Args:
        maps: its ids.
        with_mounts: have mounts of its own, too.

    Raises:
        Failure: if there can be no such namespace.
    """
    try:
        namespaces.become_root(maps, with_mounts=with_mounts)
    except (OSError, ContainerError) as err:
        why = err.strerror if isinstance(err, OSError) else err
        raise Failure(
            f"no user namespace: {why}; {namespaces.NO_NAMESPACE}=1 keeps owners in attributes"
        ) from None
    os.environ[_INSIDE] = "1"


def execute(command: list[str]) -> None:
    """Become a command, which is looked for in $PATH.

    Raises:
        Failure: if there is none.
    """
    try:
        os.execvp(command[0], command)
    except OSError as err:
        raise Failure(f"{command[0]}: {err.strerror}") from None


def reenter(maps: Maps) -> None:
    """Run this very command again as root of a new user namespace."""
    sys.stdout.flush()
    enter(maps)
    execute([sys.executable, *sys.orig_argv[1:]])
