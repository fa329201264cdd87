"""What can be wrong with a container, in words for its user.

ContainerError
    NoSuchContainer     no name and no id is that
    WrongState          it runs and may not, or the other way round
    RuntimeFailed       the OCI runtime or conmon refused
        NotExecutable   what was to be run is no program (126)
        NoSuchProgram   what was to be run is not there (127)
"""


class ContainerError(Exception):
    """Something that was asked of a container can not be done; the text is one line.

    Attributes:
        exit_code: of `unionfuse run` and `exec`, as users of docker know it.
    """

    exit_code = 125


class NoSuchContainer(ContainerError):
    """There is no container of that name or id."""


class WrongState(ContainerError):
    """The container runs and may not, or the other way round."""


class RuntimeFailed(ContainerError):
    """The OCI runtime or conmon could not do it."""


class NotExecutable(RuntimeFailed):
    """What was to be run may not be executed."""

    exit_code = 126


class NoSuchProgram(RuntimeFailed):
    """What was to be run is not in the container."""

    exit_code = 127
