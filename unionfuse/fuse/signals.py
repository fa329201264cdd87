"""The signals that a daemon obeys."""

from __future__ import annotations

import signal

OBEYED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def hold() -> None:
    """Block the signals that `serving.serve` obeys.

    One that comes before it is obeyed would leave a dead mount: it waits until then.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, OBEYED)
