"""Signals by the names and numbers that users write."""

from __future__ import annotations

import signal

from unionfuse.container.errors import ContainerError


def parse_signal(text: str) -> int:
    """Read `TERM`, `SIGTERM`, `15` or `SIGRTMIN+3`.

    Raises:
        ContainerError: if there is no such signal.
    """
    name, plus, offset = text.strip().upper().partition("+")
    if name.isdecimal() and not plus and 1 <= int(name) < signal.NSIG:
        return int(name)
    name = name if name.startswith("SIG") else f"SIG{name}"
    found = getattr(signal, name, None)
    if isinstance(found, signal.Signals) and not plus:
        return int(found)
    if name == "SIGRTMIN" and offset.isdecimal():
        number = signal.SIGRTMIN + int(offset)
        if number <= signal.SIGRTMAX:
            return number
    raise ContainerError(f"no such signal: {text}")
