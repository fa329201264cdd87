"""When to try again, and how long to wait before.

A request that failed for a reason that may pass (the connection broke, the registry is busy) is
sent again: after half a second, then twice that and so on, shortened at random so that many
clients do not come back together; or when the registry says (RFC 9110, Retry-After).
"""

from __future__ import annotations

import email.utils
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import trio

from unionfuse.image.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LONGEST_WAIT = 120.0
"""Seconds that a registry may ask for; whoever waits longer wants to know why."""
_T = TypeVar("_T")


class Transient(RegistryError):
    """What failed may succeed when it is tried again.

    Attributes:
        retry_after: seconds that the registry asked for, if it did.
    """

    def __init__(
        self, text: str, *, status: int = 0, code: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(text, status=status, code=code)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after how many seconds.

    Attributes:
        attempts: in all, as long as none of them gets any further.
    """

    attempts: int = 5
    first_delay: float = 0.5
    max_delay: float = 30.0

    def delay(self, failed: int) -> float:
        """Return how long to wait after `failed` attempts (from 1)."""
        longest: float = min(self.max_delay, self.first_delay * 2 ** (failed - 1))
        return longest * random.uniform(0.5, 1.0)


class Attempts:
    """The attempts at one thing."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failed = 0

    def progressed(self) -> None:
        """Count anew: something came of this attempt, though it failed in the end."""
        self._failed = 0

    async def failed(self, err: Transient) -> None:
        """Wait until it is time to try again.

        Raises:
            RegistryError: if it was the last attempt.
        """
        self._failed += 1
        if self._failed >= self._policy.attempts:
            tried = f"; tried {self._failed} times" if self._failed > 1 else ""
            raise RegistryError(f"{err}{tried}", status=err.status, code=err.code) from None
        if err.retry_after is not None and err.retry_after > LONGEST_WAIT:
            text = f"{err}; it asks to come back in {err.retry_after:.0f} s"
            raise RegistryError(text, status=err.status, code=err.code) from None
        own = self._policy.delay(self._failed)
        await trio.sleep(own if err.retry_after is None else err.retry_after)


async def retrying(policy: RetryPolicy, attempt: Callable[[], Awaitable[_T]]) -> _T:
    """Return what `attempt` returns, tried again while it raises Transient."""
    attempts = Attempts(policy)
    while True:
        try:
            return await attempt()
        except Transient as err:
            await attempts.failed(err)


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After asks for; None if it says nothing that can be read."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())
