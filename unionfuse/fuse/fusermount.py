"""Mount and unmount without privilege: by fusermount3, which is setuid root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

from unionfuse.fuse.errors import MountError

if TYPE_CHECKING:
    from unionfuse.fuse.options import MountOptions

_SECONDS = 30


def mount(mountpoint: bytes, options: MountOptions) -> int:
    """Mount on `mountpoint` and return the connection's descriptor.

    Raises:
        MountError: with what fusermount3 says.
    """
    words = [f"fsname={_escape(options.fsname)}", f"subtype={_escape(options.subtype)}"]
    words.append("default_permissions")
    words += ["allow_other"] if options.allow_other else []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = _run(
            ["-o", ",".join([*words, *options.words]), "--", mountpoint],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()
        if done.returncode == 0:
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
            if fds:
                os.set_inheritable(fds[0], False)
                return fds[0]
    raise MountError(f"cannot mount on {os.fsdecode(mountpoint)}: {_last_line(done.stderr)}")


def unmount(mountpoint: bytes, *, lazy: bool) -> None:
    """Unmount what this user has mounted.

    Raises:
        MountError: with what fusermount3 says.
    """
    done = _run(["-u", *(["-z"] if lazy else []), "--", mountpoint])
    if done.returncode != 0:
        raise MountError(f"{os.fsdecode(mountpoint)}: {_last_line(done.stderr)}")


def _run(
    arguments: list[str | bytes],
    env: dict[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("fusermount3")
    if program is None:
        raise MountError(
            "not permitted to mount: run as root, in a user namespace (unshare -Urm), or "
            "install fusermount3 (package fuse3)"
        )
    return subprocess.run(
        [program, *arguments],
        check=False,
        env=env,
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=_SECONDS,
    )


def _last_line(stderr: bytes) -> str:
    lines = [line for line in os.fsdecode(stderr).splitlines() if line.strip()]
    return lines[-1] if lines else "fusermount3 failed without a word"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace(",", "\\,")
