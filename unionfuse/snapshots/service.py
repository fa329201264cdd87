"""The snapshots service of containerd over gRPC: its requests and answers, and its errors."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from unionfuse.snapshots import messages, protobuf
from unionfuse.snapshots.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SnapshotError,
)
from unionfuse.snapshots.messages import (
    CommitRequest,
    Empty,
    Info,
    InfoResponse,
    KeyRequest,
    ListRequest,
    ListResponse,
    MountsResponse,
    PrepareRequest,
    Timestamp,
    UpdateRequest,
    UsageResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unionfuse.snapshots.record import Record
    from unionfuse.snapshots.snapshotter import Snapshotter

log = logging.getLogger(__name__)

_SECOND = 10**9
_PER_ANSWER = 100  # snapshots in one message of List
_STATUS = {
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
}


class Service:
    """One method a call, named as it is there."""

    def __init__(self, snapshotter: Snapshotter) -> None:
        """Answer from `snapshotter`."""
        self._snapshotter = snapshotter

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """Return what a `grpc.Server` takes."""
        unary: dict[str, tuple[Callable[[Any], object], type]] = {
            "Prepare": (self.prepare, PrepareRequest),
            "View": (self.view, PrepareRequest),
            "Mounts": (self.mounts, KeyRequest),
            "Commit": (self.commit, CommitRequest),
            "Remove": (self.remove, KeyRequest),
            "Stat": (self.stat, KeyRequest),
            "Update": (self.update, UpdateRequest),
            "Usage": (self.usage, KeyRequest),
            "Cleanup": (self.cleanup, Empty),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                _answering(name, method), functools.partial(_decode, cls), protobuf.encode
            )
            for name, (method, cls) in unary.items()
        }
        methods["List"] = grpc.unary_stream_rpc_method_handler(
            self._answer_list, functools.partial(_decode, ListRequest), protobuf.encode
        )
        return grpc.method_handlers_generic_handler(messages.SERVICE, methods)

    def prepare(self, request: PrepareRequest) -> MountsResponse:
        """Make an active snapshot."""
        mounts = self._snapshotter.prepare(request.key, request.parent, request.labels)
        return MountsResponse(mounts)

    def view(self, request: PrepareRequest) -> MountsResponse:
        """Make a snapshot to be read."""
        mounts = self._snapshotter.view(request.key, request.parent, request.labels)
        return MountsResponse(mounts)

    def mounts(self, request: KeyRequest) -> MountsResponse:
        """Tell how to mount a snapshot."""
        return MountsResponse(self._snapshotter.mounts(request.key))

    def commit(self, request: CommitRequest) -> Empty:
        """Make an active snapshot a committed one."""
        self._snapshotter.commit(request.name, request.key, request.labels)
        return Empty()

    def remove(self, request: KeyRequest) -> Empty:
        """Forget a snapshot."""
        self._snapshotter.remove(request.key)
        return Empty()

    def stat(self, request: KeyRequest) -> InfoResponse:
        """Tell of a snapshot."""
        return InfoResponse(_info(self._snapshotter.stat(request.key)))

    def update(self, request: UpdateRequest) -> InfoResponse:
        """Change labels."""
        info, paths = request.info, request.update_mask.paths
        return InfoResponse(_info(self._snapshotter.update(info.name, info.labels, paths)))

    def list(self, request: ListRequest) -> Iterator[ListResponse]:
        """Tell of all snapshots that are meant."""
        infos = [_info(record) for record in self._snapshotter.list(request.filters)]
        for at in range(0, len(infos), _PER_ANSWER):
            yield ListResponse(tuple(infos[at : at + _PER_ANSWER]))

    def usage(self, request: KeyRequest) -> UsageResponse:
        """Tell what a snapshot takes on disk."""
        usage = self._snapshotter.usage(request.key)
        return UsageResponse(usage.size, usage.inodes)

    def cleanup(self, request: Empty) -> Empty:
        """Remove what snapshots that are gone have left."""
        self._snapshotter.cleanup()
        return Empty()

    def _answer_list(
        self, request: ListRequest, context: grpc.ServicerContext
    ) -> Iterator[ListResponse]:
        try:
            yield from self.list(request)
        except (SnapshotError, OSError) as err:
            _abort("List", err, context)


def _answering(
    name: str, method: Callable[[Any], object]
) -> Callable[[Any, grpc.ServicerContext], object]:
    """Return `method` as gRPC calls it, which tells of its errors in gRPC's words."""

    def answer(request: object, context: grpc.ServicerContext) -> object:
        try:
            made = method(request)
        except (SnapshotError, OSError) as err:
            _abort(name, err, context)
        log.debug("%s %s: %s", name, request, made)
        return made

    return answer


def _abort(name: str, err: SnapshotError | OSError, context: grpc.ServicerContext) -> NoReturn:
    if isinstance(err, OSError):
        log.error("%s: %s", name, err)
        context.abort(grpc.StatusCode.INTERNAL, str(err))
    log.debug("%s: %s", name, err)
    context.abort(_STATUS[type(err)], str(err))


def _decode(cls: type[Any], data: bytes) -> Any:  # noqa: ANN401 - a message of `cls`
    return protobuf.decode(cls, data)


def _info(record: Record) -> Info:
    return Info(
        name=record.name,
        parent=record.parent,
        kind=record.kind,
        created_at=Timestamp(*divmod(record.created, _SECOND)),
        updated_at=Timestamp(*divmod(record.updated, _SECOND)),
        labels=record.labels,
    )
