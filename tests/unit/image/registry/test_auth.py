import dataclasses
import json

import pytest
import trio

from tests.support import registry as fake
from tests.support.registry import FakeRegistry
from unionfuse.image.errors import RegistryError
from unionfuse.image.registry.auth import Authenticator
from unionfuse.image.registry.connection import Connection
from unionfuse.image.registry.endpoint import Trust
from unionfuse.image.registry.repository import Repository
from unionfuse.image.registry.running import run

DATA = b"a blob"
NAME = fake.digest(DATA)


@pytest.fixture(autouse=True)
def _has_a_blob(registry: FakeRegistry) -> None:
    registry.add_blob(DATA)


def log_in(reach, **entry: str) -> None:
    content = {"auths": {reach.registry.host: entry}}
    reach.options.auth_files[0].write_text(json.dumps(content))


def look(reach, times: int = 1, at_once: int = 1) -> bool:
    async def work() -> bool:
        found = []
        async with reach.connection() as connection:
            repository = Repository.to_pull(connection, "box")

            async def one() -> None:
                found.append(await repository.has_blob(NAME))

            for _ in range(times):
                async with trio.open_nursery() as nursery:
                    for _ in range(at_once):
                        nursery.start_soon(one)
        return all(found)

    return run(work)


def test_who_is_not_asked_shows_nothing(registry: FakeRegistry, reach) -> None:
    log_in(reach, username=fake.USER, password=fake.PASSWORD)
    assert look(reach)
    assert "authorization" not in registry.requests[0].headers


def test_a_password_is_shown_when_it_is_asked_for(registry: FakeRegistry, reach) -> None:
    registry.auth = "basic"
    log_in(reach, username=fake.USER, password=fake.PASSWORD)
    assert look(reach, times=3)
    assert len(registry.requests) == 4  # asked for once


def test_without_credentials_the_files_are_named(registry: FakeRegistry, reach) -> None:
    registry.auth = "basic"
    with pytest.raises(RegistryError, match=r"no credentials for it in .*auth\.json"):
        look(reach)


def test_wrong_credentials_are_named_and_not_told(registry: FakeRegistry, reach) -> None:
    registry.auth = "basic"
    log_in(reach, username=fake.USER, password="wrong-secret")
    with pytest.raises(RegistryError, match=r"with the credentials in .*auth\.json") as caught:
        look(reach)
    assert "wrong-secret" not in str(caught.value)
    assert caught.value.status == 401


def test_a_token_is_got_by_anybody(registry: FakeRegistry, reach) -> None:
    registry.auth = "token"
    assert look(reach, times=3)
    [request] = registry.asked("GET", "/token")
    assert "service=box" in request.path
    assert "scope=repository%3Abox%3Apull" in request.path
    assert "authorization" not in request.headers


def test_requests_at_once_get_one_token(registry: FakeRegistry, reach) -> None:
    registry.auth = "token"
    assert look(reach, at_once=8)
    assert len(registry.asked("GET", "/token")) == 1


def test_a_password_goes_to_the_server_of_tokens(registry: FakeRegistry, reach) -> None:
    registry.auth = "token"
    log_in(reach, username=fake.USER, password=fake.PASSWORD)
    assert look(reach)
    [request] = registry.asked("GET", "/token")
    assert request.headers["authorization"].startswith("Basic ")
    assert f"account={fake.USER}" in request.path


def test_an_identity_token_is_exchanged(registry: FakeRegistry, reach) -> None:
    registry.auth = "token"
    log_in(reach, identitytoken="identity")
    assert look(reach)
    [request] = registry.asked("POST", "/token")
    assert b"grant_type=refresh_token" in request.body
    assert b"identity" not in request.path.encode()


def test_a_token_that_is_no_longer_good_is_renewed(registry: FakeRegistry, reach) -> None:
    registry.auth = "token"

    def forget(handler) -> None:
        handler.fake.tokens.clear()
        handler.error(
            401,
            "UNAUTHORIZED",
            {"WWW-Authenticate": f'Bearer realm="http://{registry.host}/token"'},
        )

    assert look(reach)
    registry.fault("HEAD", "", forget, times=1)
    assert look(reach, times=2)


def test_the_server_of_tokens_may_refuse(registry: FakeRegistry, reach) -> None:
    registry.auth = "token"
    registry.fault("GET", "/token", fake.answers(403, b'{"details": "x"}'))
    with pytest.raises(RegistryError, match="403 Forbidden; no credentials"):
        look(reach)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"token": "a\\nb"}', b'{"token": 7}'])
def test_an_answer_without_a_token_is_told_of(body: bytes, registry: FakeRegistry, reach) -> None:
    registry.auth = "token"
    registry.fault("GET", "/token", fake.answers(200, body))
    with pytest.raises(RegistryError, match="sent no token"):
        look(reach)


@pytest.mark.parametrize("realm", ["file:///etc/passwd", "nonsense", "//host/"])
def test_a_realm_that_is_no_url_is_told_of(realm: str, registry: FakeRegistry, reach) -> None:
    registry.auth = "token"
    registry.realm = realm
    with pytest.raises(RegistryError, match="to get tokens from"):
        look(reach)


def test_a_password_is_not_sent_without_tls_to_another_host(tmp_path) -> None:
    auth_file = tmp_path / "auth.json"
    auth_file.write_text(json.dumps({"auths": {"r.example": {"username": "u", "password": "p"}}}))

    async def fetch(*_: object) -> bytes:
        raise AssertionError("nothing may be sent")

    async def work() -> str | None:
        auth = Authenticator("r.example", "box", [auth_file], fetch)
        challenge = 'Bearer realm="http://tokens.example/t"'
        return await auth.answer([challenge], frozenset(), None)

    with pytest.raises(RegistryError, match=r"tokens\.example without TLS"):
        run(work)


def test_on_this_machine_it_finds_out_whether_there_is_tls(registry: FakeRegistry, reach) -> None:
    unsaid = dataclasses.replace(reach.options, trust=Trust())
    assert look(dataclasses.replace(reach, options=unsaid))


def test_elsewhere_there_is_tls_or_nothing(reach, monkeypatch: pytest.MonkeyPatch) -> None:
    # a name that is not loopback's, and that leads here all the same
    monkeypatch.setattr("unionfuse.image.registry.endpoint.is_loopback", lambda _: False)
    unsaid = dataclasses.replace(reach.options, trust=Trust())
    with pytest.raises(RegistryError, match="speaks no TLS"):
        look(dataclasses.replace(reach, options=unsaid))


def test_a_registry_that_is_not_there_is_told_of(reach) -> None:
    async def work() -> bool:
        async with Connection("127.0.0.1:1", "box", reach.options) as connection:
            return await Repository.to_pull(connection, "box").has_blob(NAME)

    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1: .*Connection refused"):
        run(work)


def test_a_host_that_does_not_exist_is_asked_for_once(reach) -> None:
    async def work() -> bool:
        async with Connection("host.invalid", "box", reach.options) as connection:
            return await Repository.to_pull(connection, "box").has_blob(NAME)

    with pytest.raises(RegistryError, match="no such host"):
        run(work)


def test_what_a_registry_says_is_one_line(registry: FakeRegistry, reach) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "no\n\x1b[31m" + "x" * 900}]})
    registry.fault("HEAD", "", fake.answers(400))
    registry.fault("GET", "", fake.answers(403, body.encode()))

    async def work() -> None:
        async with reach.connection() as connection:
            await Repository.to_pull(connection, "box").document("latest")

    with pytest.raises(RegistryError) as caught:
        run(work)
    text = str(caught.value)
    assert text.isprintable()
    assert "DENIED" in text
    assert len(text) < 600
