"""What this process may do, as far as it matters how layers are read."""

import os

_ALL_IDS = [["0", "0", "4294967295"]]


def is_root() -> bool:
    """Tell whether this is root outside of user namespaces, who alone sees `trusted.*`."""
    with open("/proc/self/uid_map") as uid_map:
        ids = [line.split() for line in uid_map]
    return os.geteuid() == 0 and ids == _ALL_IDS
