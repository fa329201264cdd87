import os

import pytest

from tests.support import registry as fake
from tests.support.registry import FakeRegistry
from unionfuse.image.digest import Digest
from unionfuse.image.errors import Corrupt, RegistryError
from unionfuse.image.manifest import Descriptor
from unionfuse.image.registry.progress import DONE, MOUNTED, PRESENT, Progress
from unionfuse.image.registry.repository import Repository
from unionfuse.image.registry.running import run
from unionfuse.image.registry.upload import Sizes, UploadOptions, upload
from unionfuse.image.store.blobs import Blobs

DATA = os.urandom(600_000)
NAME = Digest(fake.digest(DATA))
CHUNKED = Sizes(whole=1000, chunk=250_000)


@pytest.fixture(autouse=True)
def _stored(blobs: Blobs) -> None:
    blobs.put(DATA)


def send(reach, blobs: Blobs, options: UploadOptions | None = None, size: int = len(DATA)) -> str:
    async def work() -> str:
        async with reach.connection() as connection:
            repository = Repository.to_push(connection, "box")
            descriptor = Descriptor("application/octet-stream", NAME, size)
            how = options or UploadOptions()
            return await upload(repository, descriptor, blobs, how, Progress())

    return run(work)


def ranges(registry: FakeRegistry) -> list[str]:
    return [request.headers["content-range"] for request in registry.asked("PATCH")]


def test_a_small_blob_is_sent_in_one_piece(registry: FakeRegistry, reach, blobs) -> None:
    assert send(reach, blobs) == DONE
    assert registry.blobs[NAME] == DATA
    assert [one.method for one in registry.requests] == ["HEAD", "POST", "PUT"]


def test_a_blob_that_is_there_is_not_sent(registry: FakeRegistry, reach, blobs) -> None:
    registry.add_blob(DATA)
    assert send(reach, blobs) == PRESENT
    assert [one.method for one in registry.requests] == ["HEAD"]


def test_a_blob_of_another_repository_is_mounted(registry: FakeRegistry, reach, blobs) -> None:
    registry.add_blob(DATA, "other/box")
    assert send(reach, blobs, UploadOptions(sources=("other/box",))) == MOUNTED
    assert [one.method for one in registry.requests] == ["HEAD", "POST"]


def test_where_it_is_not_mounted_the_upload_goes_on(registry: FakeRegistry, reach, blobs) -> None:
    registry.mounts = False
    assert send(reach, blobs, UploadOptions(sources=("other/box",))) == DONE
    assert [one.method for one in registry.requests] == ["HEAD", "POST", "PUT"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 503])
def test_a_refusal_to_mount_is_no_failure(status, registry: FakeRegistry, reach, blobs) -> None:
    registry.fault("POST", "mount=", fake.answers(status))
    assert send(reach, blobs, UploadOptions(sources=("other/box",))) == DONE


def test_a_large_blob_is_sent_in_chunks(registry: FakeRegistry, reach, blobs) -> None:
    assert send(reach, blobs, UploadOptions(CHUNKED)) == DONE
    assert registry.blobs[NAME] == DATA
    assert ranges(registry) == ["0-249999", "250000-499999", "500000-599999"]


def test_chunks_are_as_large_as_the_registry_wants(registry: FakeRegistry, reach, blobs) -> None:
    registry.chunk_least = 400_000
    send(reach, blobs, UploadOptions(CHUNKED))
    assert ranges(registry) == ["0-399999", "400000-599999"]


def test_after_a_cut_it_goes_on_from_what_arrived(registry: FakeRegistry, reach, blobs) -> None:
    registry.fault("PATCH", "", fake.keeps_a_part(100_000), times=1)
    assert send(reach, blobs, UploadOptions(CHUNKED)) == DONE
    assert registry.blobs[NAME] == DATA
    assert ranges(registry)[1] == "100000-349999"


def test_an_upload_that_was_forgotten_begins_anew(registry: FakeRegistry, reach, blobs) -> None:
    def forget(handler) -> None:
        handler.fake.uploads.clear()
        handler.cut()

    registry.fault("PATCH", "", forget, times=1)
    assert send(reach, blobs, UploadOptions(CHUNKED)) == DONE
    assert len(registry.asked("POST")) == 2


def test_a_registry_that_can_not_go_on_begins_anew(registry: FakeRegistry, reach, blobs) -> None:
    registry.fault("PATCH", "", fake.keeps_a_part(100_000), times=1)
    registry.fault("GET", "uploads", fake.answers(400), times=1)
    assert send(reach, blobs, UploadOptions(CHUNKED)) == DONE
    assert len(registry.asked("POST")) == 2


def test_a_registry_that_always_forgets_is_given_up(registry: FakeRegistry, reach, blobs) -> None:
    registry.fault("PUT", "", fake.answers(404))
    with pytest.raises(RegistryError, match="tried 3 times"):
        send(reach, blobs, UploadOptions(CHUNKED))


def test_a_chunk_out_of_order_is_asked_about(registry: FakeRegistry, reach, blobs) -> None:
    registry.fault("PATCH", "", fake.answers(416), times=1)
    assert send(reach, blobs, UploadOptions(CHUNKED)) == DONE
    assert len(registry.asked("GET", "uploads")) == 1


def test_a_registry_without_chunks_gets_it_whole(registry: FakeRegistry, reach, blobs) -> None:
    registry.fault("PATCH", "", fake.answers(405))
    assert send(reach, blobs, UploadOptions(CHUNKED)) == DONE
    assert registry.blobs[NAME] == DATA


def test_a_lost_answer_to_the_last_request_is_no_failure(registry, reach, blobs) -> None:
    def lose(handler) -> None:
        handler.fake.add_blob(DATA)
        handler.fake.uploads.clear()
        handler.cut()

    registry.fault("PUT", "", lose)
    assert send(reach, blobs, UploadOptions(CHUNKED)) == DONE
    assert len(registry.asked("PUT")) == 1


def test_a_busy_registry_is_asked_again(registry: FakeRegistry, reach, blobs) -> None:
    registry.fault("PUT", "", fake.answers(503, b"", {"Retry-After": "0"}), times=2)
    assert send(reach, blobs) == DONE


def test_a_blob_that_is_damaged_here_is_told_so(registry: FakeRegistry, reach, blobs) -> None:
    blobs.path(NAME).write_bytes(bytes(len(DATA)))
    with pytest.raises(Corrupt, match="in the store is damaged"):
        send(reach, blobs)


def test_a_blob_of_another_size_is_not_sent(registry: FakeRegistry, reach, blobs) -> None:
    with pytest.raises(Corrupt, match="600000 bytes, not 5"):
        send(reach, blobs, size=5)
    assert registry.requests == []


def test_a_registry_that_says_no_place_is_told_so(registry: FakeRegistry, reach, blobs) -> None:
    registry.fault("POST", "", fake.answers(202))
    with pytest.raises(RegistryError, match="where to send it"):
        send(reach, blobs)
