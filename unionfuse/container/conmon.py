"""conmon: the program of podman's and cri-o's that stays with a container.

It starts the container through the OCI runtime, keeps its terminal or its pipes, writes the log,
takes part in an attach, and records the exit code, whether or not any command of ours goes on. At
the end it runs one more command, by which everything is put away.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import msgspec

from unionfuse.container import runtime as oci
from unionfuse.container.errors import RuntimeFailed
from unionfuse.container.processes import Process, identify
from unionfuse.container.programs import find_program
from unionfuse.record import record

if TYPE_CHECKING:
    from unionfuse.container.runtime import Runtime
    from unionfuse.container.state import Container

_LOG_BYTES = 64 << 20
# Does what follows unless a process lives: the command that waits for the container, and then
# puts it away itself.
_UNLESS_ALIVE = 'kill -0 "$1" 2>/dev/null && exit 0; shift; exec "$@"'


@record
class Started:
    """A container that is made and waits for its start."""

    conmon: Process | None
    init: Process | None


def create(
    container: Container, runtime: Runtime, at_exit: list[str], attended_by: int = 0
) -> Started:
    """Have conmon make the container of a bundle; it does not run yet.

    Args:
        container: whose bundle is complete.
        runtime: the OCI runtime.
        at_exit: the command to run when the container has ended.
        attended_by: a process that does the same; while it lives, the command is not run.

    Raises:
        RuntimeFailed: if conmon is not there, or the runtime refuses.
    """
    path = find_program("conmon")
    if path is None:
        raise RuntimeFailed("no conmon: install it (package conmon)")
    if attended_by:
        at_exit = ["/bin/sh", "-c", _UNLESS_ALIVE, "sh", str(attended_by), *at_exit]
    container.exit_file.parent.mkdir(exist_ok=True)
    container.exit_file.unlink(missing_ok=True)
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            [path, *_arguments(container, runtime, at_exit)],
            env={**os.environ, "_OCI_SYNCPIPE": str(writer)},
            pass_fds=(writer,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=container.path,
            check=False,
        )
        os.close(writer)
        writer = -1
        with open(reader, "rb", closefd=False) as pipe:
            answer = pipe.readline()
    finally:
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)
    return _started(container, answer, done.stderr)


def _arguments(container: Container, runtime: Runtime, at_exit: list[str]) -> list[str]:
    options = container.record.options
    arguments = [
        "--api-version", "1",
        "--cid", container.id,
        "--cuuid", container.id,
        "--name", container.record.name,
        "--runtime", runtime.path,
        "--bundle", str(container.path),
        "--container-pidfile", str(container.pid_files.init),
        "--conmon-pidfile", str(container.pid_files.conmon),
        "--exit-dir", str(container.exit_file.parent),
        "--log-path", f"k8s-file:{container.log}",
        "--log-size-max", str(_LOG_BYTES),
        "--log-level", "error",
        "--full-attach",
        "--no-sync-log",
    ]  # fmt: skip
    if options.tty:
        arguments.append("--terminal")
    if options.interactive:
        arguments.append("--stdin")
    for argument in runtime.arguments:
        arguments += ["--runtime-arg", argument]
    arguments += ["--exit-command", at_exit[0]]
    for argument in at_exit[1:]:
        arguments += ["--exit-command-arg", argument]
    return arguments


def _started(container: Container, answer: bytes, stderr: bytes) -> Started:
    try:
        said = msgspec.json.decode(answer) if answer else {}
    except msgspec.DecodeError:
        said = {"message": answer.decode(errors="replace")}
    pid = said.get("data", -1)
    if pid <= 0:
        text = said.get("message") or stderr.decode(errors="replace")
        raise oci.failure(text or "conmon ended without a word")
    conmon_pid = int(container.pid_files.conmon.read_text())
    return Started(identify(conmon_pid), identify(pid))
