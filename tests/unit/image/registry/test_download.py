import dataclasses
import json
import os
import time

import pytest
import trio

from tests.support import registry as fake
from tests.support.registry import FakeRegistry
from unionfuse.image.digest import Digest
from unionfuse.image.errors import Corrupt, NotFound, RegistryError
from unionfuse.image.manifest import Descriptor
from unionfuse.image.registry.connection import Timeouts
from unionfuse.image.registry.download import download
from unionfuse.image.registry.progress import Progress
from unionfuse.image.registry.repository import Repository
from unionfuse.image.registry.running import run
from unionfuse.image.store.blobs import Blobs

DATA = os.urandom(1 << 20) + os.urandom(77)


def descriptor(data: bytes, size: int | None = None) -> Descriptor:
    name = Digest(fake.digest(data))
    return Descriptor("application/octet-stream", name, len(data) if size is None else size)


def get(reach, blobs: Blobs, wanted: Descriptor, progress: Progress | None = None) -> bool:
    async def work() -> bool:
        async with reach.connection() as connection:
            repository = Repository.to_pull(connection, "box")
            return await download(repository, wanted, blobs, progress or Progress())

    return run(work)


def leftovers(blobs: Blobs) -> list[str]:
    return os.listdir(blobs.tmp)


def test_a_blob_comes_whole(registry: FakeRegistry, reach, blobs: Blobs) -> None:
    registry.add_blob(DATA)
    assert get(reach, blobs, descriptor(DATA))
    assert blobs.path(descriptor(DATA).digest).read_bytes() == DATA
    assert leftovers(blobs) == []


def test_a_blob_that_is_there_is_not_asked_for(registry: FakeRegistry, reach, blobs) -> None:
    blobs.put(DATA)
    assert not get(reach, blobs, descriptor(DATA))
    assert registry.requests == []


def test_a_blob_of_no_bytes_is_not_asked_for(registry: FakeRegistry, reach, blobs) -> None:
    assert get(reach, blobs, descriptor(b""))
    assert registry.requests == []
    assert descriptor(b"").digest in blobs


def test_a_blob_that_is_not_there_is_not_found(reach, blobs: Blobs) -> None:
    with pytest.raises(NotFound, match="BLOB_UNKNOWN"):
        get(reach, blobs, descriptor(DATA))


def test_after_a_cut_only_the_rest_is_asked_for(registry: FakeRegistry, reach, blobs) -> None:
    registry.add_blob(DATA)
    registry.fault("GET", "/blobs/", fake.cut_after(700_000), times=1)
    get(reach, blobs, descriptor(DATA))
    assert [request.headers.get("range") for request in registry.requests] == [
        None, "bytes=700000-",
    ]  # fmt: skip


def test_cuts_do_not_count_as_long_as_bytes_come(registry: FakeRegistry, reach, blobs) -> None:
    registry.add_blob(DATA)
    registry.fault("GET", "/blobs/", fake.cut_after(262_144), times=4)
    get(reach, blobs, descriptor(DATA))
    assert len(registry.requests) == 5


def test_it_gives_up_when_nothing_comes(registry: FakeRegistry, reach, blobs) -> None:
    registry.add_blob(DATA)
    registry.fault("GET", "/blobs/", fake.cut)
    with pytest.raises(RegistryError, match="tried 3 times"):
        get(reach, blobs, descriptor(DATA))
    assert len(registry.requests) == 3


def test_what_an_earlier_pull_got_is_taken_up(registry: FakeRegistry, reach, blobs) -> None:
    registry.add_blob(DATA)
    with blobs.begin(descriptor(DATA).digest, len(DATA)) as writer:
        writer.write(DATA[:500])
    get(reach, blobs, descriptor(DATA))
    assert registry.requests[0].headers["range"] == "bytes=500-"


def test_a_damaged_part_of_an_earlier_pull_is_thrown_away(registry, reach, blobs) -> None:
    registry.add_blob(DATA)
    with blobs.begin(descriptor(DATA).digest, len(DATA)) as writer:
        writer.write(bytes(500))
    get(reach, blobs, descriptor(DATA))
    assert blobs.path(descriptor(DATA).digest).read_bytes() == DATA


def test_a_registry_without_ranges_sends_it_all_again(registry, reach, blobs) -> None:
    registry.add_blob(DATA)
    registry.takes_ranges = False
    registry.fault("GET", "/blobs/", fake.cut_after(5000), times=1)
    get(reach, blobs, descriptor(DATA))
    assert blobs.path(descriptor(DATA).digest).read_bytes() == DATA


@pytest.mark.parametrize(
    "said", ["", "bytes 0-9/10", f"bytes 500-{len(DATA)}/{len(DATA) + 1}", "bytes=500-"]
)
def test_another_range_than_the_one_asked_for_is_not_taken(said, registry, reach, blobs) -> None:
    registry.add_blob(DATA)
    with blobs.begin(descriptor(DATA).digest, len(DATA)) as writer:
        writer.write(DATA[:500])
    answer = fake.answers(206, bytes(len(DATA) - 500), {"Content-Range": said} if said else {})
    registry.fault("GET", "/blobs/", answer, times=1)
    get(reach, blobs, descriptor(DATA))
    assert "range" not in registry.requests[1].headers


def test_a_range_that_can_not_be_had_begins_anew(registry, reach, blobs) -> None:
    registry.add_blob(DATA)
    with blobs.begin(descriptor(DATA).digest, len(DATA)) as writer:
        writer.write(DATA[:500])
    registry.fault("GET", "/blobs/", fake.answers(416), times=1)
    get(reach, blobs, descriptor(DATA))
    assert "range" not in registry.requests[1].headers


def test_other_bytes_than_the_digest_says_are_corrupt(registry, reach, blobs) -> None:
    registry.add_blob(DATA)
    registry.fault("GET", "/blobs/", fake.answers(200, bytes(len(DATA))))
    with pytest.raises(Corrupt, match="is sha256:"):
        get(reach, blobs, descriptor(DATA))
    assert descriptor(DATA).digest not in blobs
    assert leftovers(blobs) == []


def test_another_length_is_corrupt_before_a_byte_is_taken(registry, reach, blobs) -> None:
    registry.add_blob(DATA)
    with pytest.raises(Corrupt, match=f"{len(DATA)} bytes, not the 5 "):
        get(reach, blobs, descriptor(DATA, size=5))


def test_a_body_without_an_end_is_cut_at_its_size(registry, reach, blobs) -> None:
    registry.add_blob(DATA)
    registry.fault("GET", "/blobs/", fake.endless)
    with pytest.raises(Corrupt, match="more than its"):
        get(reach, blobs, descriptor(DATA))
    partial = blobs.tmp / leftovers(blobs)[0]
    assert partial.stat().st_size == 0


def test_an_encoded_body_is_refused(registry, reach, blobs) -> None:
    registry.fault("GET", "/blobs/", fake.answers(200, DATA, {"Content-Encoding": "gzip"}))
    with pytest.raises(RegistryError, match="encoded"):
        get(reach, blobs, descriptor(DATA))


def test_a_trickle_ends_in_time(registry, reach, blobs) -> None:
    def trickle(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        while True:
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.01)

    registry.add_blob(DATA)
    registry.fault("GET", "/blobs/", trickle)
    slow = dataclasses.replace(reach.options, timeouts=Timeouts(pace=0.05, least=1000))
    with pytest.raises(RegistryError, match="only"):
        get(dataclasses.replace(reach, options=slow), blobs, descriptor(DATA))


def test_silence_ends_in_time(registry, reach, blobs) -> None:
    registry.add_blob(DATA)
    registry.fault("GET", "/blobs/", lambda _: time.sleep(0.3))
    slow = dataclasses.replace(reach.options, timeouts=Timeouts(read=0.03))
    with pytest.raises(RegistryError, match="no answer"):
        get(dataclasses.replace(reach, options=slow), blobs, descriptor(DATA))


def test_it_waits_for_another_process_that_gets_the_same_blob(registry, reach, blobs) -> None:
    registry.add_blob(DATA)
    writer = blobs.begin(descriptor(DATA).digest, len(DATA))

    async def work() -> bool:
        async with reach.connection() as connection, trio.open_nursery() as nursery:

            async def finish() -> None:
                await trio.sleep(0.05)
                with writer:
                    writer.write(DATA)
                    writer.commit()

            nursery.start_soon(finish)
            repository = Repository.to_pull(connection, "box")
            return await download(repository, descriptor(DATA), blobs, Progress())

    assert not run(work)
    assert registry.requests == []
    assert leftovers(blobs) == []


def test_the_host_that_it_is_sent_on_to_gets_no_credentials(registry, reach, blobs) -> None:
    registry.auth = "basic"
    registry.add_blob(DATA)
    reach.options.auth_files[0].write_text(
        json.dumps({"auths": {registry.host: {"username": fake.USER, "password": fake.PASSWORD}}})
    )
    with fake.running(FakeRegistry(blobs=registry.blobs)) as other:
        location = f"http://{other.host}/elsewhere/{descriptor(DATA).digest}"

        def send_on(handler) -> None:
            if handler.is_let_in():
                handler.answer(307, b"", {"Location": location})

        registry.fault("GET", "/blobs/", send_on)
        get(reach, blobs, descriptor(DATA))
    assert any("authorization" in request.headers for request in registry.requests)
    assert [request.headers.get("authorization") for request in other.requests] == [None]


def test_being_sent_in_circles_ends(registry, reach, blobs) -> None:
    here = {"Location": f"/v2/box/blobs/{descriptor(DATA).digest}"}
    registry.fault("GET", "/blobs/", fake.answers(302, b"", here))
    with pytest.raises(RegistryError, match="sends on more than"):
        get(reach, blobs, descriptor(DATA))


def test_being_sent_to_a_file_is_refused(registry, reach, blobs) -> None:
    registry.fault("GET", "/blobs/", fake.answers(302, b"", {"Location": "file:///etc/passwd"}))
    with pytest.raises(RegistryError, match="file URL"):
        get(reach, blobs, descriptor(DATA))
