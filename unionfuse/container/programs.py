"""Find the programs of others that containers need."""

from __future__ import annotations

import os

_SBIN = ("/usr/sbin", "/sbin")


def find_program(*names: str) -> str | None:
    """Return the path of the first of these programs that is installed, root's among them.

    A name with a slash is a path. `shutil.which` would do it, in a module that takes long to load.
    """
    directories = (*os.environ.get("PATH", os.defpath).split(":"), *_SBIN)
    for name in names:
        for directory in ("",) if "/" in name else directories:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    return None
