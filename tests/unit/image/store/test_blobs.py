import threading

import pytest

from unionfuse.image.digest import digest_of
from unionfuse.image.errors import Corrupt, NotFound
from unionfuse.image.store.blobs import Blobs

DATA = b"content" * 1000


@pytest.fixture
def blobs(tmp_path):
    (tmp_path / "tmp").mkdir()
    return Blobs(tmp_path / "blobs", tmp_path / "tmp")


def test_what_is_put_is_read_under_its_digest(blobs):
    digest = blobs.put(DATA)
    assert digest == digest_of(DATA)
    assert blobs.read(digest) == DATA
    assert (digest in blobs, blobs.size(digest), list(blobs)) == (True, len(DATA), [digest])


def test_a_blob_that_is_not_there_is_not_found(blobs):
    with pytest.raises(NotFound):
        blobs.read(digest_of(DATA))


def test_a_damaged_blob_is_not_read(blobs):
    digest = blobs.put(DATA)
    blobs.path(digest).write_bytes(DATA[:-1] + b"X")
    with pytest.raises(Corrupt):
        blobs.read(digest)


def test_a_transfer_goes_on_where_it_was_cut(blobs):
    digest = digest_of(DATA)
    with blobs.begin(digest, len(DATA)) as writer:
        writer.write(DATA[:100])
    assert digest not in blobs
    with blobs.begin(digest, len(DATA)) as writer:
        assert writer.offset == 100
        writer.write(DATA[100:])
        writer.commit()
    assert blobs.read(digest) == DATA
    assert list(blobs.tmp.iterdir()) == []


def test_other_bytes_than_named_are_refused_and_not_kept(blobs):
    digest = digest_of(DATA)
    with blobs.begin(digest, len(DATA)) as writer:
        writer.write(DATA[:-1] + b"X")
        with pytest.raises(Corrupt):
            writer.commit()
    assert digest not in blobs
    assert list(blobs.tmp.iterdir()) == []


def test_more_bytes_than_named_are_refused_at_once(blobs):
    with (
        blobs.begin(digest_of(DATA), len(DATA)) as writer,
        pytest.raises(Corrupt, match="more than its"),
    ):
        writer.write(DATA + b"X")


def test_what_was_left_by_a_longer_transfer_is_thrown_away(blobs):
    digest = digest_of(DATA)
    with blobs.begin(digest, None) as writer:
        writer.write(DATA + b"X")
    with blobs.begin(digest, len(DATA)) as writer:
        assert writer.offset == 0
        writer.write(DATA)
        writer.commit()
    assert digest in blobs


def test_a_blob_without_a_name_leaves_nothing_when_given_up(blobs):
    with blobs.new() as writer:
        writer.write(DATA)
    assert list(blobs.tmp.iterdir()) == []


def test_two_writers_of_one_blob_take_turns(blobs):
    digest = digest_of(DATA)
    offsets = []

    def other():
        with blobs.begin(digest, len(DATA)) as writer:
            offsets.append(writer.offset)

    with blobs.begin(digest, len(DATA)) as writer:
        thread = threading.Thread(target=other)
        thread.start()
        writer.write(DATA)
        writer.commit()
    thread.join(timeout=10)
    assert offsets == [0]
    assert digest in blobs
