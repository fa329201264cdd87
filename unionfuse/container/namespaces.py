"""The namespaces of a container's helpers: of mounts, and of users where we are not root.

The mount of a container is in a mount namespace of its own, which lives as long as the processes
in it: the mount's daemon, conmon, the runtime. When they are gone, killed or by a power failure,
nothing of it is left in anybody's table of mounts. A later command that needs the mount joins.

An unprivileged user becomes root of a user namespace. That is done in this process, without
another exec: a child that stays outside runs newuidmap(1), which is setuid root.
"""

from __future__ import annotations

import errno
import os
import pwd
from typing import NamedTuple

from unionfuse.container import ids
from unionfuse.container.errors import ContainerError
from unionfuse.container.programs import find_program
from unionfuse.syscalls import mount as sys_mount
from unionfuse.syscalls.namespaces import CLONE_NEWNS, CLONE_NEWUSER, setns, unshare

_ALL_IDS = ["0", "0", "4294967295"]
NO_NAMESPACE = "UNIONFUSE_NO_USERNS"  # set: no subordinate ids, as in `unionfuse image`
_TOOLS = ("newuidmap", "newgidmap")


class Maps(NamedTuple):
    """The ids of a user namespace."""

    uids: list[ids.IdRange]
    gids: list[ids.IdRange]


def in_user_namespace() -> bool:
    """Tell whether this process is in a user namespace that has not all ids."""
    with open("/proc/self/uid_map") as uid_map:
        return uid_map.read().split() != _ALL_IDS


def has_ids() -> bool:
    """Tell whether there is another id than root's."""
    return highest_id("uid") > 0


def highest_id(kind: str) -> int:
    """Return the highest uid or gid that there is for this process."""
    with open(f"/proc/self/{kind}_map") as id_map:
        return ids.highest(id_map.read())


def enter() -> None:
    """Give this process a mount namespace of its own; be root of a user namespace if not root.

    Unmounts outside go on to be seen inside, or else a container would keep disks busy.

    Raises:
        ContainerError: if the kernel or newuidmap refuse.
    """
    try:
        if os.geteuid() == 0:
            leave_mounts()
        else:
            _enter_users()
            sys_mount.mount(b"", b"/", b"", sys_mount.MS_REC | sys_mount.MS_SLAVE, b"")
    except OSError as err:
        raise ContainerError(_problem(err)) from None


def enter_users() -> None:
    """Be root of a user namespace if not root, so that files of other ids can be handled."""
    if os.geteuid() != 0:
        enter()


def join(pid: int) -> None:
    """Enter the namespaces of a container's helper, and stay in the working directory.

    Raises:
        ContainerError: if it is gone.
    """
    try:
        pidfd = os.pidfd_open(pid)
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = CLONE_NEWNS | (0 if os.geteuid() == 0 else CLONE_NEWUSER)
            setns(pidfd, flags)
            os.fchdir(here)  # by which relative paths are meant: setns went to the root
        finally:
            os.close(pidfd)
            os.close(here)
    except ProcessLookupError:
        raise ContainerError("the container has just ended") from None
    except OSError as err:
        raise ContainerError(f"cannot enter the container's namespaces: {err.strerror}") from None
    if os.geteuid() != 0:
        os.setgid(0)
        os.setuid(0)


def leave_mounts() -> None:
    """Have a mount namespace apart from the one that this process is in, with what is there."""
    try:
        unshare(CLONE_NEWNS)
        sys_mount.mount(b"", b"/", b"", sys_mount.MS_REC | sys_mount.MS_SLAVE, b"")
    except OSError as err:
        raise ContainerError(_problem(err)) from None


def granted() -> Maps | None:
    """Return the maps with this user's subordinate ids.

    None if there are none, if they can not be mapped, and if UNIONFUSE_NO_USERNS is set.
    """
    if os.environ.get(NO_NAMESPACE) or not all(map(find_program, _TOOLS)):
        return None
    uid, gid = os.geteuid(), os.getegid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    users = ids.subordinate(ids.read(ids.SUBUID), user, uid)
    groups = ids.subordinate(ids.read(ids.SUBGID), user, uid)
    if not (users and groups):
        return None
    return Maps(ids.mapping(uid, users), ids.mapping(gid, groups))


def become_root(maps: Maps, *, with_mounts: bool) -> None:
    """Become root of a new user namespace with these ids, and with mounts of its own if asked.

    Raises:
        ContainerError: if newuidmap(1) or newgidmap(1) refuse; the text says what they say.
        OSError: if the kernel does.
    """
    unshared, written = os.pipe(), os.pipe()
    parent = os.getpid()
    helper = os.fork()
    if helper == 0:
        _write_maps(parent, maps, (unshared, written))
    for fd in (unshared[0], written[1]):
        os.close(fd)
    try:
        unshare(CLONE_NEWUSER | (CLONE_NEWNS if with_mounts else 0))
        os.write(unshared[1], b"x")
    finally:
        os.close(unshared[1])
        with open(written[0], "rb") as pipe:
            problem = pipe.read()
        os.waitpid(helper, 0)
    if problem:
        raise ContainerError(os.fsdecode(problem))


def _enter_users() -> None:
    maps = granted()
    own = Maps(ids.mapping(os.geteuid(), []), ids.mapping(os.getegid(), []))
    become_root(maps or own, with_mounts=True)
    if maps is not None:
        # What the ids outside were is mapped to 0 already; the supplementary groups go.
        os.setgroups([])


def _write_maps(pid: int, maps: Maps, pipes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """Be the helper outside: when `pid` is in its namespace, give it its ids; never return."""
    (go, go_writer), (_, answer) = pipes
    os.close(go_writer)
    problem = ""
    try:
        if os.read(go, 1):
            problem = _map_ids(pid, maps)
    except OSError as err:
        problem = f"the ids of the user namespace can not be set: {err.strerror}"
    finally:
        os.write(answer, os.fsencode(problem))
        os._exit(0)


def _map_ids(pid: int, maps: Maps) -> str:
    if all(len(mapped) == 1 for mapped in maps):
        with open(f"/proc/{pid}/setgroups", "w") as setgroups:
            setgroups.write("deny")
        for kind, mapped in zip(("uid", "gid"), maps, strict=True):
            with open(f"/proc/{pid}/{kind}_map", "w") as id_map:
                id_map.write(" ".join(ids.arguments(mapped)))
        return ""
    begun = [
        _begin(tool, [str(pid), *ids.arguments(mapped)])
        for tool, mapped in zip(_TOOLS, maps, strict=True)
    ]
    problems = [_problem_of(*each) for each in begun]
    return next(filter(None, problems), "")


def _begin(tool: str, arguments: list[str]) -> tuple[str, int, int]:
    """Run a program; return its name, its pid, and a descriptor for what it has to say."""
    reader, writer = os.pipe()  # neither is inherited
    said = [(os.POSIX_SPAWN_DUP2, writer, number) for number in (1, 2)]
    pid = os.posix_spawn(find_program(tool) or tool, [tool, *arguments], os.environ,
                         file_actions=said)  # fmt: skip
    os.close(writer)
    return tool, pid, reader


def _problem_of(tool: str, pid: int, reader: int) -> str:
    """Wait for the end of a program; return what it could not do."""
    with open(reader, errors="replace") as pipe:
        words = pipe.read().split()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not code:
        return ""
    said = " ".join(words) or f"exit code {code}"
    return f"{tool}: {said.removeprefix(f'{tool}: ')}"


def _problem(err: OSError) -> str:
    if err.errno in (errno.EPERM, errno.ENOSPC, errno.EINVAL, errno.EUSERS):
        return (
            f"no namespace for the container: {err.strerror}; are user namespaces turned off "
            "(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)?"
        )
    return f"no namespace for the container: {err.strerror}"
