import base64
import json
import os
from pathlib import Path

import pytest

from unionfuse.image.errors import RegistryError
from unionfuse.image.registry.credentials import (
    Credentials,
    auth_files,
    default_auth_files,
    find,
)
from unionfuse.image.registry.endpoint import Trust, default_directories, tls_context

SECRET = "correct horse"


def entry(user: str = "kim", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "auth.json"


def write(file: Path, **content: object) -> list[Path]:
    file.write_text(json.dumps(content))
    return [file]


def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "docker-credential-keep"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_the_file_of_the_environment_is_the_only_one() -> None:
    assert auth_files({"REGISTRY_AUTH_FILE": "/a"}, Path("/home/u"), 7) == [Path("/a")]


def test_the_files_of_podman_come_before_those_of_docker() -> None:
    assert auth_files({"XDG_RUNTIME_DIR": "/run/user/7"}, Path("/home/u"), 7) == [
        Path("/run/user/7/containers/auth.json"),
        Path("/home/u/.config/containers/auth.json"),
        Path("/home/u/.docker/config.json"),
    ]
    assert auth_files({"DOCKER_CONFIG": "/d"}, Path("/home/u"), 7)[0] == Path(
        "/run/containers/7/auth.json"
    )


def test_a_user_without_a_home_has_files_elsewhere_at_most(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HOME", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)  # of nobody
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "containers").mkdir()
    assert find("r.example", "a", default_auth_files()).credentials is None
    assert tls_context("r.example", Trust(directories=default_directories()))
    write(tmp_path / "containers/auth.json", auths={"r.example": entry()})
    assert find("r.example", "a", default_auth_files()).credentials is not None


def test_the_longest_key_counts(file: Path) -> None:
    auths = {"r.example": entry("host"), "r.example/a": entry("a"), "r.example/a/b": entry("ab")}
    files = write(file, auths=auths)
    for repository, user in (("a/b/c", "ab"), ("a/b", "ab"), ("a/bc", "a"), ("x", "host")):
        found = find("r.example", repository, files)
        assert found.credentials is not None
        assert found.credentials.username == user
        assert found.source == str(file)


def test_another_port_is_another_registry(file: Path) -> None:
    files = write(file, auths={"r.example": entry()})
    assert find("r.example:5000", "a", files).credentials is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
def test_dockers_key_of_its_hub_is_known(key: str, file: Path) -> None:
    files = write(file, auths={key: entry()})
    assert find("docker.io", "library/debian", files).credentials == Credentials("kim", SECRET)


def test_the_first_file_that_has_some_counts(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    write(file, auths={"elsewhere": entry()})
    files = [tmp_path / "none.json", file, *write(other, auths={"r.example": entry()})]
    assert find("r.example", "a", files).source == str(other)


def test_where_there_is_none_the_files_are_named(file: Path, tmp_path: Path) -> None:
    assert find("r.example", "a", [file, tmp_path / "b"]).source == f"{file}, {tmp_path / 'b'}"


def test_an_identity_token_counts_before_a_password(file: Path) -> None:
    files = write(file, auths={"r.example": {**entry(), "identitytoken": "t"}})
    assert find("r.example", "a", files).credentials == Credentials(identity_token="t")


def test_an_empty_entry_leaves_it_to_the_helper(file, tmp_path, monkeypatch) -> None:
    script = 'read key; echo "{\\"Username\\": \\"of $key\\", \\"Secret\\": \\"s\\"}"'
    helper(tmp_path, monkeypatch, script)
    files = write(file, auths={"r.example": {}}, credsStore="keep")
    assert find("r.example", "a", files).credentials == Credentials("of r.example", "s")


def test_a_helper_may_have_a_token(file, tmp_path, monkeypatch) -> None:
    helper(tmp_path, monkeypatch, """echo '{"Username": "<token>", "Secret": "t"}'""")
    files = write(file, credHelpers={"r.example": "keep"})
    assert find("r.example", "a", files).credentials == Credentials(identity_token="t")


def test_a_helper_that_has_none_is_no_failure(file, tmp_path, monkeypatch) -> None:
    helper(tmp_path, monkeypatch, "echo credentials not found in native keychain; exit 1")
    files = write(file, credHelpers={"r.example": "keep"}, auths={"r.example": entry()})
    assert find("r.example", "a", files).credentials == Credentials("kim", SECRET)


@pytest.mark.parametrize(
    ("script", "words"), [("echo locked; exit 1", "failed: locked"), ("echo what", "can not be")]
)
def test_a_helper_that_fails_is_told_of(script, words, file, tmp_path, monkeypatch) -> None:
    helper(tmp_path, monkeypatch, script)
    with pytest.raises(RegistryError, match=words):
        find("r.example", "a", write(file, credHelpers={"r.example": "keep"}))


@pytest.mark.parametrize("name", ["missing", "../bin/sh"])
def test_a_helper_that_is_none_is_told_of(name: str, file: Path) -> None:
    with pytest.raises(RegistryError, match="credential"):
        find("r.example", "a", write(file, credHelpers={"r.example": name}))


@pytest.mark.parametrize(
    "content",
    [SECRET, '{"auths": {"r.example": {"auth": 7}}}', f'{{"auths": "{SECRET}"}}', "\udcff"],
)
def test_a_file_that_is_none_is_told_of_without_its_content(content: str, file: Path) -> None:
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RegistryError, match="not in the form") as caught:
        find("r.example", "a", [file])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("auth", ["$$$", base64.b64encode(SECRET.encode()).decode()])
def test_an_entry_that_is_none_is_told_of_without_its_content(auth: str, file: Path) -> None:
    with pytest.raises(RegistryError, match=r"auth of r\.example") as caught:
        find("r.example", "a", write(file, auths={"r.example": {"auth": auth}}))
    assert SECRET not in str(caught.value)
    assert auth not in str(caught.value)


def test_what_is_shown_of_credentials_has_no_secret() -> None:
    shown = repr(Credentials("kim", SECRET, SECRET, SECRET))
    assert SECRET not in shown
