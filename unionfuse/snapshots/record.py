"""What is known of a snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class Kind(IntEnum):
    """What a snapshot is for; the numbers are containerd's."""

    VIEW = 1  # to be read
    ACTIVE = 2  # to be written
    COMMITTED = 3  # to be a parent


@dataclass(frozen=True, slots=True)
class Usage:
    """What a snapshot itself takes, without its parents.

    Attributes:
        size: bytes on disk.
        inodes: a file with several names is one.
    """

    size: int = 0
    inodes: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One snapshot.

    Attributes:
        id: names its directory; never used again.
        name: or key, of one that is not committed.
        parent: name of the snapshot that it is based on; empty: on nothing.
        created, updated: nanoseconds since the epoch.
        usage: of a committed one, else nothing.
    """

    id: int
    name: str
    parent: str
    kind: Kind
    created: int
    updated: int
    labels: dict[str, str] = field(default_factory=dict)
    usage: Usage = Usage()
