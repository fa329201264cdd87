"""The messages of containerd's snapshots service, as far as they are used here.

Names and numbers are those of api/services/snapshots/v1/snapshots.proto and api/types/mount.proto
of containerd. `snapshotter`, number 1 of each request, is what containerd calls us, and of no use.
Messages that are the same but for their names are one here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

SERVICE = "containerd.services.snapshots.v1.Snapshots"


@dataclass(frozen=True, slots=True)
class Empty:
    """google.protobuf.Empty, and CleanupRequest."""


@dataclass(frozen=True, slots=True)
class Timestamp:
    """google.protobuf.Timestamp."""

    seconds: Annotated[int, 1] = 0
    nanos: Annotated[int, 2] = 0


@dataclass(frozen=True, slots=True)
class FieldMask:
    """google.protobuf.FieldMask."""

    paths: Annotated[tuple[str, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount(8) to be done."""

    type: Annotated[str, 1] = ""
    source: Annotated[str, 2] = ""
    target: Annotated[str, 3] = ""
    options: Annotated[tuple[str, ...], 4] = ()


@dataclass(frozen=True, slots=True)
class Info:
    """What is known of a snapshot; `kind` is one of `record.Kind`."""

    name: Annotated[str, 1] = ""
    parent: Annotated[str, 2] = ""
    kind: Annotated[int, 3] = 0
    created_at: Annotated[Timestamp, 4] = field(default_factory=Timestamp)
    updated_at: Annotated[Timestamp, 5] = field(default_factory=Timestamp)
    labels: Annotated[dict[str, str], 6] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """PrepareSnapshotRequest and ViewSnapshotRequest."""

    key: Annotated[str, 2] = ""
    parent: Annotated[str, 3] = ""
    labels: Annotated[dict[str, str], 4] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MountsResponse:
    """What Prepare, View and Mounts answer."""

    mounts: Annotated[tuple[Mount, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """MountsRequest, RemoveSnapshotRequest, StatSnapshotRequest and UsageRequest."""

    key: Annotated[str, 2] = ""


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """CommitSnapshotRequest."""

    name: Annotated[str, 2] = ""
    key: Annotated[str, 3] = ""
    labels: Annotated[dict[str, str], 4] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InfoResponse:
    """StatSnapshotResponse and UpdateSnapshotResponse."""

    info: Annotated[Info, 1] = field(default_factory=Info)


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """UpdateSnapshotRequest."""

    info: Annotated[Info, 2] = field(default_factory=Info)
    update_mask: Annotated[FieldMask, 3] = field(default_factory=FieldMask)


@dataclass(frozen=True, slots=True)
class ListRequest:
    """ListSnapshotsRequest."""

    filters: Annotated[tuple[str, ...], 2] = ()


@dataclass(frozen=True, slots=True)
class ListResponse:
    """ListSnapshotsResponse."""

    info: Annotated[tuple[Info, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class UsageResponse:
    """UsageResponse."""

    size: Annotated[int, 1] = 0
    inodes: Annotated[int, 2] = 0
