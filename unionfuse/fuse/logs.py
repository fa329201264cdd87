"""Where a daemon logs to."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from unionfuse.fuse.errors import MountError

if TYPE_CHECKING:
    from unionfuse.fuse.options import MountPlan

_SYSLOG = "/dev/log"
_FORMAT = "%(asctime)s unionfuse[%(process)d] %(levelname)s %(message)s"


class SystemLog(logging.Handler):
    """The system's log, connected when there is something to say: to import it takes long."""

    _target: logging.Handler | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; there may be no system's log."""
        if self._target is None:
            self._target = self._connected()
            self._target.setFormatter(self.formatter)
        self._target.handle(record)

    def close(self) -> None:
        """Close the connection."""
        if self._target is not None:
            self._target.close()
        super().close()

    def _connected(self) -> logging.Handler:
        if not os.path.exists(_SYSLOG):
            return logging.NullHandler()
        from logging.handlers import SysLogHandler

        return SysLogHandler(_SYSLOG)


def configure(plan: MountPlan) -> None:
    """Log to the file given, to stderr in the foreground, else to the system's log.

    Raises:
        MountError: if the file can not be written.
    """
    handler: logging.Handler = SystemLog()
    if plan.log is not None:
        path = os.fsdecode(plan.log)
        try:
            handler = logging.FileHandler(path)
        except OSError as err:
            problem = err.strerror or "can not be written"
            raise MountError(f"log file {path}: {problem}") from None
    elif plan.foreground:
        handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    logging.basicConfig(level=logging.DEBUG if plan.debug else logging.INFO, handlers=[handler])
