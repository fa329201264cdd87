"""To be let in: answers to the challenges of a registry, Basic and Bearer.

The tokens of Bearer come from a server that the challenge names (distribution's token and OAuth2
specifications). They are kept for as long as they are good, one for each set of scopes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import msgspec
import trio

from unionfuse.image.errors import RegistryError
from unionfuse.image.registry import credentials
from unionfuse.image.registry.challenge import Challenge, parse_challenges
from unionfuse.image.registry.endpoint import is_loopback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from unionfuse.image.registry.credentials import Credentials, Found

    # (what for, method, URL, headers, body) -> the body of the answer
    Fetch = Callable[[str, str, str, dict[str, str], bytes | None], Awaitable[bytes]]

_CLIENT_ID = "unionfuse"
_DEFAULT_LIFE = 60.0  # of a token that does not say how long it is good
_MARGIN = 10.0  # a token is not used in its last seconds


class _TokenAnswer(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class _Shown:
    authorization: str
    until: float  # of time.monotonic()


class Authenticator:
    """What is shown to one registry."""

    def __init__(
        self,
        registry: str,
        repository: str,
        files: list[Path],
        fetch: Fetch,
        *,
        allows_plain: bool = False,
    ) -> None:
        """Let in to `repository`; `allows_plain` if secrets may be sent without TLS."""
        self._registry = registry
        self._repository = repository
        self._files = files
        self._fetch = fetch
        self._allows_plain = allows_plain
        self._found: Found | None = None
        self._shown: dict[frozenset[str], _Shown] = {}
        self._lock = trio.Lock()

    def current(self, scopes: frozenset[str]) -> str | None:
        """Return the `Authorization` that was good last, if it still is."""
        shown = self._shown.get(scopes)
        if shown is None or time.monotonic() >= shown.until:
            return None
        return shown.authorization

    async def answer(
        self, headers: Iterable[str], scopes: frozenset[str], refused: str | None
    ) -> str | None:
        """Return the `Authorization` for a challenge; None if nothing new can be shown.

        Args:
            headers: the values of `WWW-Authenticate`.
            scopes: what is to be done.
            refused: what was shown when the challenge came.

        Raises:
            RegistryError: if the server of tokens refuses, or credentials can not be read.
        """
        async with self._lock:
            # of several requests that were refused at once, one gets the new token for all
            current = self.current(scopes)
            if current is not None and current != refused:
                return current
            shown = await self._answer(parse_challenges(headers), scopes)
            if shown is None or shown.authorization == refused:
                return None
            self._shown[scopes] = shown
            return shown.authorization

    async def _answer(self, challenges: list[Challenge], scopes: frozenset[str]) -> _Shown | None:
        found = await self._find()
        by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
        if found is not None and found.registry_token:
            return _Shown(f"Bearer {found.registry_token}", float("inf"))
        bearer = by_scheme.get("bearer")
        if bearer is not None and "realm" in bearer.parameters:
            return await self._token(bearer.parameters, scopes, found)
        if "basic" in by_scheme and found is not None and found.username:
            return _Shown(found.basic(), float("inf"))
        return None

    async def _find(self) -> Credentials | None:
        if self._found is None:
            self._found = await trio.to_thread.run_sync(
                credentials.find, self._registry, self._repository, self._files
            )
        return self._found.credentials

    def describe(self) -> str:
        """Say whose credentials were shown, or where some were looked for."""
        if self._found is None:
            return "no credentials were asked for"
        if self._found.credentials is None:
            return f"no credentials for it in {self._found.source}"
        return f"with the credentials in {self._found.source}"

    async def _token(
        self, parameters: dict[str, str], scopes: frozenset[str], found: Credentials | None
    ) -> _Shown:
        realm = parameters["realm"]
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RegistryError(f"{self._registry} names {realm!r} to get tokens from")
        # A registry reached by TLS must not have the password sent in the clear.
        is_clear = parts.scheme == "http" and not is_loopback(parts.hostname)
        if is_clear and found is not None and not self._allows_plain:
            raise RegistryError(
                f"{self._registry} wants the credentials sent to {parts.netloc} without TLS"
            )
        wanted = sorted(scopes | set(parameters.get("scope", "").split()))
        query: list[tuple[str, str]] = []
        if service := parameters.get("service"):
            query.append(("service", service))
        asked = time.monotonic()
        what = f"token for {self._repository} from {parts.netloc}"
        if found is not None and found.identity_token:
            query += [
                ("grant_type", "refresh_token"),
                ("client_id", _CLIENT_ID),
                ("scope", " ".join(wanted)),
                ("refresh_token", found.identity_token),
            ]
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            data = await self._fetch(what, "POST", realm, form, urlencode(query).encode())
        else:
            query += [("scope", scope) for scope in wanted]
            headers: dict[str, str] = {}
            if found is not None and found.username:
                query.append(("account", found.username))
                headers["Authorization"] = found.basic()
            url = f"{realm}{'&' if parts.query else '?'}{urlencode(query)}"
            data = await self._fetch(what, "GET", url, headers, None)
        return self._read_token(data, parts.netloc, asked)

    def _read_token(self, data: bytes, server: str, asked: float) -> _Shown:
        try:
            answer = msgspec.json.decode(data, type=_TokenAnswer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise RegistryError(f"{server}, for {self._registry}, sent no token") from None
        token = answer.token or answer.access_token
        if not token or not token.isascii() or not token.isprintable():
            raise RegistryError(f"{server}, for {self._registry}, sent no token")
        life = answer.expires_in if answer.expires_in is not None else _DEFAULT_LIFE
        return _Shown(f"Bearer {token}", asked + max(life - _MARGIN, life / 2))
