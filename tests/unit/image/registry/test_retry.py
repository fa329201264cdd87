import email.utils
import time

import pytest
import trio.testing

from unionfuse.image.errors import RegistryError
from unionfuse.image.registry.retry import (
    LONGEST_WAIT,
    RetryPolicy,
    Transient,
    parse_retry_after,
    retrying,
)


def waited(*failures: Transient, policy: RetryPolicy) -> float:
    """Fail like this and then succeed; return the seconds that it took, of a clock that jumps."""
    left = list(failures)

    async def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    async def work() -> float:
        begun = trio.current_time()
        assert await retrying(policy, attempt) == "done"
        return trio.current_time() - begun

    return trio.run(work, clock=trio.testing.MockClock(autojump_threshold=0))


def test_the_waits_double_up_to_a_bound() -> None:
    policy = RetryPolicy(attempts=9, first_delay=1, max_delay=4)
    assert 0.5 <= waited(Transient("x"), policy=policy) <= 1
    longest = 1 + 2 + 4 + 4
    assert longest / 2 <= waited(*[Transient("x")] * 4, policy=policy) <= longest


def test_the_registry_says_how_long_to_wait() -> None:
    failure = Transient("busy", retry_after=7)
    assert waited(failure, failure, policy=RetryPolicy()) == pytest.approx(14)


def test_a_wait_that_is_too_long_is_told_of() -> None:
    failure = Transient("busy", status=429, retry_after=LONGEST_WAIT + 1)
    with pytest.raises(RegistryError, match="busy; it asks to come back in 121 s") as caught:
        waited(failure, policy=RetryPolicy())
    assert caught.value.status == 429


def test_the_last_failure_is_raised() -> None:
    with pytest.raises(RegistryError, match="third; tried 3 times"):
        waited(*map(Transient, ("first", "second", "third")), policy=RetryPolicy(attempts=3))


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, None), ("12", 12), ("soon", None), ("-1", None), ("", None)]
)
def test_seconds_are_read(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_a_date_is_read() -> None:
    value = email.utils.formatdate(time.time() + 60, usegmt=True)
    found = parse_retry_after(value)
    assert found is not None
    assert 50 < found < 70
    assert parse_retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0
