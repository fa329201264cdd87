"""Be root of a user namespace with the ids that /etc/subuid grants, as `podman unshare` is.

There owners are kept for real: files can be given to the ids that are mapped. A command that needs
this is run again in the namespace. Without grants, or without newuidmap(1), it stays as it is,
and owners go to an attribute.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from typing import NamedTuple

from unionfuse.cli.errors import Failure
from unionfuse.syscalls.namespaces import CLONE_NEWNS, CLONE_NEWUSER, unshare

NO_NAMESPACE = "UNIONFUSE_NO_USERNS"
_INSIDE = "UNIONFUSE_USERNS"  # set in the namespace, where a second one would not help


class Grant(NamedTuple):
    """Ids that a user may map: the first, and how many."""

    first: int
    number: int


def grants(path: str, user: str, uid: int) -> list[Grant]:
    """Return what a file as /etc/subuid grants to a user, by name or by number (subuid(5))."""
    found = []
    try:
        with open(path) as file:
            for line in file:
                fields = line.strip().split(":")
                if len(fields) != 3 or fields[0] not in (user, str(uid)):
                    continue
                if fields[1].isdecimal() and fields[2].isdecimal() and int(fields[2]):
                    found.append(Grant(int(fields[1]), int(fields[2])))
    except OSError:
        return []
    return found


def id_map(own: int, granted: list[Grant]) -> list[int]:
    """Return a mapping for newuidmap(1): 0 is the user, the ids from 1 on are what is granted."""
    mapping, inside = [0, own, 1], 1
    for grant in granted:
        mapping += [inside, grant.first, grant.number]
        inside += grant.number
    return mapping


class Mapping(NamedTuple):
    """The ids of a user namespace, in the words of newuidmap(1) and newgidmap(1)."""

    uids: list[int]
    gids: list[int]


def available() -> Mapping | None:
    """Return the mapping that this user can have; None for root, and where there is none."""
    if os.geteuid() == 0 or os.environ.get(NO_NAMESPACE) or os.environ.get(_INSIDE):
        return None
    if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        return None
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    uids, gids = grants("/etc/subuid", user, uid), grants("/etc/subgid", user, uid)
    if not uids or not gids:
        return None
    return Mapping(id_map(uid, uids), id_map(os.getgid(), gids))


def enter(mapping: Mapping, command: list[str], *, with_mounts: bool = False) -> None:
    """Become `command`, as root of a new user namespace.

    Args:
        mapping: its ids.
        command: and its arguments; looked for in $PATH.
        with_mounts: have mounts of its own, too.

    Raises:
        Failure: if there can be no such namespace.
    """
    try:
        _enter(mapping, with_mounts=with_mounts)
    except OSError as err:
        raise Failure(
            f"no user namespace: {err.strerror}; {NO_NAMESPACE}=1 keeps owners in attributes"
        ) from None
    os.environ[_INSIDE] = "1"
    try:
        os.execvp(command[0], command)
    except OSError as err:
        raise Failure(f"{command[0]}: {err.strerror}") from None


def reenter(mapping: Mapping) -> None:
    """Run this very command again as root of a new user namespace."""
    sys.stdout.flush()
    enter(mapping, [sys.executable, *sys.orig_argv[1:]])


def _enter(mapping: Mapping, *, with_mounts: bool) -> None:
    """Leave for a new user namespace; a child that stays behind writes its map."""
    pid = os.getpid()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(writer)
        if os.read(reader, 1) != b"!":
            os._exit(1)  # there is no namespace
        os._exit(_write_maps(pid, mapping))
    os.close(reader)
    try:
        unshare(CLONE_NEWUSER | (CLONE_NEWNS if with_mounts else 0))
        os.write(writer, b"!")
    finally:
        os.close(writer)
        _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise OSError(0, "newuidmap and newgidmap did not map the ids of /etc/subuid and subgid")


def _write_maps(pid: int, mapping: Mapping) -> int:
    for program, ids in (("newuidmap", mapping.uids), ("newgidmap", mapping.gids)):
        command = [program, str(pid), *map(str, ids)]
        if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode != 0:
            return 1
    return 0
