"""What has to be mounted to see a snapshot: what Prepare, View and Mounts answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unionfuse.snapshots.errors import InvalidArgument
from unionfuse.snapshots.messages import Mount
from unionfuse.snapshots.record import Kind

if TYPE_CHECKING:
    from unionfuse.snapshots.directories import Directories
    from unionfuse.snapshots.record import Record

# By these labels a container is run with other ids than those of its image. The values are those
# of a user namespace, ID:HOST-ID:COUNT[,...].
UID_LABEL = "containerd.io/snapshot/uidmapping"
GID_LABEL = "containerd.io/snapshot/gidmapping"
# Nobody but us mounts these uppers again: they may say what only we and overlayfs understand.
_WORDS = ("redirect_dir=on", "metacopy=on")


@dataclass(frozen=True, slots=True)
class MountWords:
    """How unions are mounted.

    Attributes:
        program: what mount.fuse3 runs, by its name in PATH or by its path.
        options: more words for each union.
    """

    program: str = "unionfuse-overlay"
    options: tuple[str, ...] = ()


def mounts(
    record: Record, ancestors: list[int], directories: Directories, words: MountWords
) -> tuple[Mount, ...]:
    """Return the mounts by which a snapshot that is not committed is seen.

    Args:
        record: the snapshot.
        ancestors: the ids of its parents, the nearest first.
        directories: where they are.
        words: how unions are mounted.

    Raises:
        InvalidArgument: if a label of the snapshot maps ids, and makes no sense.
    """
    maps = [
        f"{word}={_triples(label, record.labels[label])}"
        for word, label in (("uidmapping", UID_LABEL), ("gidmapping", GID_LABEL))
        if label in record.labels
    ]
    writable = record.kind is Kind.ACTIVE
    if not ancestors:  # there is nothing to unite
        return (_bind(directories, record.id, writable=writable),)
    if len(ancestors) == 1 and not writable and not maps:
        return (_bind(directories, ancestors[0], writable=False),)
    options = [*_WORDS, *words.options, *maps] if writable else [*words.options, *maps, "ro"]
    if writable:
        options.append(f"workdir={directories.work(record.id)}")
        options.append(f"upperdir={directories.fs(record.id)}")
    options.append("lowerdir=" + ":".join(str(directories.fs(one)) for one in ancestors))
    return (Mount(type=f"fuse3.{words.program}", source="overlay", options=tuple(options)),)


def mapped_root(labels: dict[str, str]) -> tuple[int, int] | None:
    """Return the ids of the host that root has in a mapped snapshot; None: it is not mapped.

    Raises:
        InvalidArgument: if a label makes no sense, or root is nobody there.
    """
    if UID_LABEL not in labels and GID_LABEL not in labels:
        return None
    found = []
    for label in (UID_LABEL, GID_LABEL):
        numbers = [int(word) for word in _triples(label, labels.get(label, "0:0:1")).split(":")]
        hosts = [
            host - first
            for first, host, count in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
            if first <= 0 < first + count
        ]
        if not hosts:
            raise InvalidArgument(f"label {label}: {labels[label]!r} maps no root")
        found.append(hosts[0])
    return found[0], found[1]


def _triples(label: str, value: str) -> str:
    """Return the ranges of a label as the mount program has them: FIRST:HOST:COUNT[:...]."""
    ranges = value.split(",")
    for text in ranges:
        numbers = text.split(":")
        if len(numbers) != 3 or not all(
            number.isascii() and number.isdecimal() for number in numbers
        ):
            raise InvalidArgument(f"label {label}: {value!r} is not ID:HOST-ID:COUNT[,...]")
    return ":".join(ranges)


def _bind(directories: Directories, identifier: int, *, writable: bool) -> Mount:
    mode = "rw" if writable else "ro"
    return Mount(type="bind", source=str(directories.fs(identifier)), options=(mode, "rbind"))
