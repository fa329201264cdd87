"""The directory of a user for what is of no use after a boot."""

import os
import stat

NAME = "unionfuse"


def candidates() -> list[str]:
    """Return where it may be, best first."""
    directories = [f"/run/{NAME}"] if os.geteuid() == 0 else []
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        directories.append(os.path.join(runtime, NAME))
    # Root of a user namespace may find that of the real root, and takes one of its namespace.
    user = f"/tmp/{NAME}-{os.geteuid()}"
    namespace = os.stat("/proc/self/ns/user").st_ino
    return [*directories, user, f"{user}-{namespace}"]


def is_ours(directory: str) -> bool:
    """Tell whether this is a directory of ours, and no trap that somebody set up in /tmp.

    Raises:
        OSError: ENOENT if it is not there.
    """
    st = os.lstat(directory)
    return stat.S_ISDIR(st.st_mode) and st.st_uid == os.geteuid()


def find() -> str | None:
    """Return the directory, made if it is not there; None where there can be none."""
    for directory in candidates():
        try:
            if not os.path.isdir(directory):
                os.makedirs(directory, mode=0o700, exist_ok=True)
            if is_ours(directory) and os.access(directory, os.W_OK | os.X_OK):
                return directory
        except OSError:
            continue
    return None
