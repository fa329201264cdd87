import threading

import pytest

from unionfuse.image.layers.ahead import ahead


def test_what_is_yielded_comes_in_order():
    with ahead(iter([b"%d" % number for number in range(100)])) as pieces:
        assert list(pieces) == [b"%d" % number for number in range(100)]


def test_an_error_comes_after_what_was_before_it():
    def source():
        yield b"1"
        raise OSError(5, "broken")

    with ahead(source()) as pieces:
        assert next(pieces) == b"1"
        with pytest.raises(OSError, match="broken"):
            next(pieces)


def test_the_thread_ends_with_its_user():
    before = threading.active_count()

    def source():
        while True:
            yield b"more"

    with ahead(source()) as pieces:
        next(pieces)
    assert threading.active_count() == before
