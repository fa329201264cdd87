"""Run one more process in a container that runs."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from unionfuse.container import bundle, namespaces, start
from unionfuse.container import runtime as oci
from unionfuse.container.errors import WrongState
from unionfuse.container.finish import recover
from unionfuse.container.options import RunOptions
from unionfuse.container.state import RUNNING

if TYPE_CHECKING:
    from unionfuse.container.state import Container, Containers

_SIGNALLED = 128


def join(containers: Containers, container: Container) -> None:
    """Enter the namespaces of a container that runs.

    Raises:
        WrongState: if it does not.
    """
    state = recover(containers, container)
    if state.status != RUNNING or state.daemon is None:
        raise WrongState(f"{container.record.name} is not running")
    namespaces.join(state.daemon.pid)


def execute(container: Container, options: RunOptions, *, detach: bool) -> int:
    """Run a process beside those of a container; return its exit code.

    Args:
        container: whose namespaces this process has joined.
        options: command, env, user, workdir, tty.
        detach: not to wait for it.
    What the runtime can not start it tells on stderr; the exit code is 125, 126 or 127 then.

    Raises:
        ContainerError: if the user is not there.
    """
    record = container.record
    own = record.options
    merged = RunOptions(
        command=options.command,
        entrypoint=(),
        env=(*own.env, *options.env),
        user=options.user or own.user,
        workdir=options.workdir or own.workdir,
        tty=options.tty,
    )
    user = start.user_of(container, options.user)
    spec = bundle.process(record.config, merged, user, start.setting_of(container))
    runtime = start.runtime_of(container)
    with tempfile.TemporaryDirectory(prefix="exec-", dir=runtime.root) as scratch:
        process, log = Path(scratch, "process.json"), Path(scratch, "log")
        process.write_bytes(msgspec.json.encode(spec))
        command = [runtime.path, "--log", str(log), *runtime.arguments, "exec"]
        if detach:
            command += ["--detach", "--pid-file", str(Path(scratch, "pid"))]
        command += ["--process", str(process), container.id]
        code = _run(command, detach=detach)
        if code and log.exists() and (said := log.read_text(errors="replace")):
            return oci.failure(said).exit_code  # the runtime itself has told it on stderr
    return code


def _run(command: list[str], *, detach: bool) -> int:
    streams = subprocess.DEVNULL if detach else None
    child = subprocess.Popen(command, stdin=streams, stdout=streams, stderr=streams)
    with child:
        while True:
            try:
                code = child.wait()
            except KeyboardInterrupt:  # the process has got it too, and decides
                continue
            return _SIGNALLED - code if code < 0 else code
