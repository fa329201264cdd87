"""Act as somebody else: as another user, without root, in namespaces of one's own.

`acting_as` lends the identity of a plain user to a piece of a test. `WITHOUT_ROOT` names the ways
to run a whole command with no right that root has; each shows the command the same files.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import pwd
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.mounts import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# A user that has a name: fusermount3 refuses one without.
NOBODY = pwd.getpwnam("nobody").pw_uid

_libc = ctypes.CDLL(None, use_errno=True)
# x86 has numbers of its own, all later machines share theirs.
_IS_X86 = platform.machine() == "x86_64"
_SETGROUPS, _SETRESUID, _SETRESGID = (116, 117, 119) if _IS_X86 else (159, 147, 149)
_KEEP = -1


@contextlib.contextmanager
def acting_as(uid: int, gid: int | None = None, groups: Sequence[int] = ()) -> Iterator[None]:
    """Give this thread alone the effective identity of a plain user, without capabilities.

    The system calls are made directly: the functions of libc change every thread, the watchdog of
    the tests too. access(2) asks for the real user and is not answered for the lent one.
    """
    before = os.getegid(), os.getgroups()
    _set_identity(uid, uid if gid is None else gid, groups)
    try:
        yield
    finally:
        _system_call(_SETRESUID, _KEEP, os.getuid(), _KEEP)
        _set_identity(os.getuid(), *before)


def _set_identity(uid: int, gid: int, groups: Sequence[int]) -> None:
    array = (ctypes.c_uint32 * len(groups))(*groups)
    _system_call(_SETGROUPS, len(groups), array)
    _system_call(_SETRESGID, _KEEP, gid, _KEEP)
    _system_call(_SETRESUID, _KEEP, uid, _KEEP)


def _system_call(number: int, *args: object) -> None:
    if _libc.syscall(number, *args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


# --- Ways to have no rights -----------------------------------------------------------------------


def in_private_mounts(script: str) -> list[str]:
    """Return the beginning of a command that runs in mounts of its own, after `script` as root."""
    return [
        "unshare", "--mount", "--propagation", "private",
        "sh", "-euc", f'{script}\nexec "$@"', "sh",
    ]  # fmt: skip


def as_plain_user(uid: int = NOBODY, *, device_mode: str = "666") -> list[str]:
    """Return the beginning of a command that runs as a plain user who may use /dev/fuse.

    The machine's own device stays as it is: the mounts, in which there is another one with
    `device_mode`, are the command's alone. So is what lets the user reach this Python, which may
    lie in root's home.
    """
    scratch = _scratch("dev")
    device = f"""
        mount -t tmpfs -o mode=755 devices '{scratch}'
        mknod -m {device_mode} '{scratch}/fuse' c 10 229
        mount --bind '{scratch}/fuse' /dev/fuse
    """
    drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
    return [*in_private_mounts(device + reaching(REPOSITORY)), *drop]


def _scratch(name: str) -> Path:
    path = Path(tempfile.mkdtemp(prefix=f"{name}."))
    path.chmod(0o755)
    return path


def reaching(*needed: Path) -> str:
    """Return commands that let every user reach this Python and `needed`."""
    wanted = [Path(sys.prefix), Path(sys.base_prefix), *needed]
    closed: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(path.resolve() for path in wanted):
        for ancestor in reversed(path.parents):
            if not ancestor.stat().st_mode & 0o001:
                closed.setdefault(ancestor, []).append(path)
                break
    lines = []
    for ancestor, paths in closed.items():
        # The directory is covered, and of what is in it the needed paths alone are put back.
        kept = [_scratch("kept") for _ in paths]
        pairs = list(zip(paths, kept, strict=True))
        lines += [f"mount --bind '{path}' '{copy}'" for path, copy in pairs]
        lines.append(f"mount -t tmpfs -o mode=755 cover '{ancestor}'")
        lines += [f"mkdir -p '{path}'; mount --bind '{copy}' '{path}'" for path, copy in pairs]
    return "\n".join(lines)


def in_user_namespace() -> list[str]:
    """Return the beginning of a command that is root in a user namespace of its own."""
    return ["unshare", "--user", "--map-root-user", "--mount"]


_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MAPPED_IDS = 65536


def run_in_user_namespace(work: Callable[[], int]) -> int:
    """Be root of a user namespace that has the first 65,536 ids, and return what `work` does.

    It runs in a child; only root can give it more than one id.
    """
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            status = work()
        finally:
            os._exit(status)
    os.close(ready[1])
    if os.read(ready[0], 1):
        for kind in ("uid", "gid"):
            Path(f"/proc/{child}/{kind}_map").write_text(f"0 0 {_MAPPED_IDS}")
    os.write(go[1], b"x")
    for fd in (ready[0], *go):
        os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
