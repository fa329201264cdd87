"""What can go wrong in a benchmark."""


class BenchError(Exception):
    """A benchmark can not be made, or its result is not to be believed."""


class WrongResult(BenchError):
    """A system did something else than was asked of it."""
