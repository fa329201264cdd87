"""A way to a server on which connections break."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Proxy:
    """Passes bytes on.

    Attributes:
        host: where it listens.
        cuts: the connections to break: each after so many bytes in either direction.
        cut: how many were broken.
    """

    target: str
    host: str = ""
    cuts: list[int] = field(default_factory=list)
    cut: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def allowance(self, passed: int, size: int) -> int:
        """Return how many of `size` bytes may pass after `passed` of them on a connection."""
        with self.lock:
            if not self.cuts or passed + size < self.cuts[0]:
                return size
            self.cut += 1
            return max(0, self.cuts.pop(0) - passed)


@contextlib.contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """Listen, and pass on to `target` (ADDRESS:PORT)."""
    made = Proxy(target)
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        made.host = f"127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                thread = threading.Thread(target=_connection, args=(made, client))
                thread.start()
                threads.append(thread)

        acceptor = threading.Thread(target=serve)
        acceptor.start()
        try:
            yield made
        finally:
            server.shutdown(socket.SHUT_RDWR)
            acceptor.join(timeout=10)
            for thread in threads:
                thread.join(timeout=10)


def _connection(made: Proxy, client: socket.socket) -> None:
    address, _, port = made.target.partition(":")
    with client, socket.create_connection((address, int(port))) as upstream:
        back = threading.Thread(target=_pass_on, args=(made, upstream, client))
        back.start()
        _pass_on(made, client, upstream)
        back.join(timeout=10)


def _pass_on(made: Proxy, source: socket.socket, target: socket.socket) -> None:
    passed = 0
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            allowed = made.allowance(passed, len(data))
            target.sendall(data[:allowed])
            passed += allowed
            if allowed < len(data):
                break
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
