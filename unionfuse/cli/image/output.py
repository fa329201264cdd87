"""Files and directories that appear when they are complete."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from unionfuse.cli.errors import Failure
from unionfuse.image.store.lease import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def new_file(path: str | None) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` at the end; the standard output for None or -.

    Raises:
        Failure: if it can not be written.
    """
    if path in (None, "-"):
        with _telling("standard output"):
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    target = Path(str(path))
    with _telling(target):
        if target.exists() and not target.is_file():
            with target.open("wb") as file:  # a device, a pipe
                yield file
            return
        fd, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with open(fd, "wb") as file:
                yield cast("BinaryIO", file)
                file.flush()
                os.fsync(file.fileno())
                mask = os.umask(0)
                os.umask(mask)
                os.fchmod(file.fileno(), 0o666 & ~mask)
            Path(temporary).rename(target)
        except BaseException:
            Path(temporary).unlink()
            raise


@contextlib.contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Yield a directory that becomes `target`, which is not there or empty, at the end.

    Raises:
        Failure: if it can not be written, or there is something.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Failure(f"{target} is there, and not empty")
    with _telling(target):
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.absolute().parent))
        try:
            yield temporary
            temporary.chmod(0o755)
            temporary.rename(target)
        except BaseException:
            remove_tree(temporary)
            raise


@contextlib.contextmanager
def _telling(target: Path | str) -> Iterator[None]:
    """Tell what can not be written by the name that it was to have."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as err:
        raise Failure(f"{target}: {err.strerror or err}") from None
