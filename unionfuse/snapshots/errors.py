"""What can be wrong with a request for a snapshot, as containerd tells errors apart.

    SnapshotError
        NotFound             there is no snapshot of that name
        AlreadyExists        there is one already
        FailedPrecondition   not with a snapshot in that state
        InvalidArgument      the request makes no sense

What the system refuses stays an OSError.
"""


class SnapshotError(Exception):
    """A request that can not be met; the text is one line."""


class NotFound(SnapshotError):
    """There is no such snapshot."""


class AlreadyExists(SnapshotError):
    """The name is taken."""


class FailedPrecondition(SnapshotError):
    """The snapshot, or one beside it, is not in a state for this."""


class InvalidArgument(SnapshotError):
    """The request makes no sense."""


class ServerError(Exception):
    """The snapshotter can not start; the text says why, in one line."""
