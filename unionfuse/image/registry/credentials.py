"""The credentials of a user, where podman and docker keep them.

The files, the first that has something for the registry (containers-auth.json(5)):

    $REGISTRY_AUTH_FILE                         alone, if it is set
    $XDG_RUNTIME_DIR/containers/auth.json       of `podman login`; else /run/containers/UID/
    $XDG_CONFIG_HOME/containers/auth.json       else ~/.config/
    $DOCKER_CONFIG/config.json                  of `docker login`; else ~/.docker/

In each: a helper for this registry (`credHelpers`), an entry of `auths`, and the helper for all
(`credsStore`). A key of `auths` may name a namespace or a repository: the longest that fits counts.
A secret is in no message, no log and no repr.
"""

from __future__ import annotations

import base64
import binascii
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from unionfuse.image.errors import RegistryError
from unionfuse.image.registry.endpoint import home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HELPER_TIMEOUT = 30.0
_TOKEN_USER = "<token>"  # what a helper calls the user of an identity token
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a user is known by: a name and a password, or a token that stands for both.

    Attributes:
        identity_token: to be exchanged for tokens of access (OAuth2's refresh token).
        registry_token: to be shown to the registry as it is.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """Return the value of `Authorization` for the scheme Basic."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search.

    Attributes:
        source: the file that had them; the files that were looked at if none had.
    """

    credentials: Credentials | None
    source: str


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class _File(msgspec.Struct, rename="camel"):
    auths: dict[str, _Entry | None] | None = None
    cred_helpers: dict[str, str] | None = None
    creds_store: str = ""


class _Answer(msgspec.Struct, rename="pascal"):
    """What `docker-credential-NAME get` prints."""

    username: str = ""
    secret: str = ""


def auth_files(environ: Mapping[str, str], home: Path, uid: int) -> list[Path]:
    """Return the files to look at, in this order."""
    if chosen := environ.get("REGISTRY_AUTH_FILE"):
        return [Path(chosen)]
    runtime = environ.get("XDG_RUNTIME_DIR")
    run = Path(runtime, "containers") if runtime else Path(f"/run/containers/{uid}")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    return [run / "auth.json", config / "containers" / "auth.json", docker / "config.json"]


def default_auth_files() -> list[Path]:
    """Return the files of this user and this environment."""
    return auth_files(os.environ, home(), os.getuid())


def find(registry: str, repository: str, files: list[Path]) -> Found:
    """Look for the credentials for a repository.

    Raises:
        RegistryError: if a file is there and can not be read, or a helper fails.
    """
    for path in files:
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as err:
            raise RegistryError(f"credentials in {path}: {err.strerror}") from None
        try:
            content = msgspec.json.decode(data or b"{}", type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            # the decoder's own words may quote the file
            raise RegistryError(f"credentials in {path}: not in the form of auth.json") from None
        credentials = _find_in(content, path, registry, repository)
        if credentials is not None:
            return Found(credentials, str(path))
    return Found(None, ", ".join(map(str, files)))


def _find_in(content: _File, path: Path, registry: str, repository: str) -> Credentials | None:
    helpers = content.cred_helpers or {}
    for key, helper in helpers.items():
        if _host_of(key) == registry:
            found = _ask_helper(helper, key)
            if found is not None:
                return found
    auths = content.auths or {}
    for key in _keys(registry, repository):
        entry = auths.get(key)
        if entry is not None and (found := _of_entry(entry, path, key)) is not None:
            return found
    for key, entry in auths.items():
        if entry is not None and _is_legacy(key) and _host_of(key) == registry:
            found = _of_entry(entry, path, key)
            if found is not None:
                return found
    if content.creds_store:
        return _ask_helper(
            content.creds_store, _DOCKER_HUB_KEY if registry == _DOCKER_HUB else registry
        )
    return None


def _keys(registry: str, repository: str) -> Iterator[str]:
    """Yield the keys that fit, the longest first."""
    parts = [registry, *repository.split("/")]
    for count in range(len(parts), 0, -1):
        yield "/".join(parts[:count])


def _is_legacy(key: str) -> bool:
    """Tell docker's keys, which are URLs of the first API, and its names of docker.io."""
    return "://" in key or key.endswith(("/v1/", "/v2/", "/v1", "/v2")) or key in _DOCKER_HUB_NAMES


def _host_of(key: str) -> str:
    host = key.partition("://")[2] or key
    host = host.partition("/")[0]
    return _DOCKER_HUB if host in _DOCKER_HUB_NAMES else host


def _of_entry(entry: _Entry, path: Path, key: str) -> Credentials | None:
    if entry.identitytoken:
        return Credentials(identity_token=entry.identitytoken)
    if entry.registrytoken:
        return Credentials(registry_token=entry.registrytoken)
    if entry.auth:
        try:
            pair = base64.b64decode(entry.auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise RegistryError(f"credentials in {path}: auth of {key} is no base64") from None
        username, colon, password = pair.partition(":")
        if not colon:
            raise RegistryError(f"credentials in {path}: auth of {key} is no NAME:PASSWORD")
        return Credentials(username, password.rstrip("\0"))
    if entry.username:
        return Credentials(entry.username, entry.password)
    return None  # docker leaves empty entries for what its helper keeps


def _ask_helper(name: str, key: str) -> Credentials | None:
    """Ask a program of docker's credential helper protocol."""
    program = f"docker-credential-{name}"
    if "/" in name:
        raise RegistryError(f"credential helper {name!r} is no name of a program")
    try:
        done = subprocess.run(
            [program, "get"], input=key.encode(), capture_output=True,
            timeout=_HELPER_TIMEOUT, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise RegistryError(f"there is no program {program}, which has the credentials") from None
    except subprocess.TimeoutExpired:
        raise RegistryError(f"{program} did not answer in {_HELPER_TIMEOUT:.0f} s") from None
    except OSError as err:
        raise RegistryError(f"{program}: {err.strerror}") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        if "credentials not found" in said:
            return None
        raise RegistryError(f"{program} failed: {' '.join(said.split())[:200]}")
    try:
        answer: Any = msgspec.json.decode(done.stdout, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise RegistryError(f"{program} gave an answer that can not be read") from None
    if answer.username == _TOKEN_USER:
        return Credentials(identity_token=answer.secret)
    return Credentials(answer.username, answer.secret) if answer.username else None
