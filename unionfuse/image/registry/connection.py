"""Requests to one registry: let in, sent on, and with failures told in one line.

What may succeed later is raised as `Transient`; who asks decides how often to try.
"""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Self

import httpcore
import httpx
import trio

from unionfuse import __version__
from unionfuse.image.errors import NotFound, Refused, RegistryError
from unionfuse.image.manifest import MAX_DOCUMENT
from unionfuse.image.registry import credentials, endpoint
from unionfuse.image.registry.auth import Authenticator
from unionfuse.image.registry.failures import find_cause, is_final, phrase, reason, said
from unionfuse.image.registry.retry import RetryPolicy, Transient, parse_retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

NO_SCOPES: frozenset[str] = frozenset()
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_ERROR = 64 << 10
_HANDSHAKE_TIMEOUT = 5.0
# A blob is read in pieces of this size (bytes) where the network is fast: with httpcore's own
# 64 KiB a pull over loopback takes a third more of the processor.
httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds without anything happening after which the registry counts as dead.

    Attributes:
        document: for a manifest, an index or a token as a whole.
        verdict: for the answer to an upload: the registry hashes what it got.
        pace: in each such time at least `least` bytes of a blob have to come.
        least: bytes.
    """

    connect: float = 15.0
    read: float = 30.0
    write: float = 60.0
    document: float = 120.0
    verdict: float = 300.0
    pace: float = 60.0
    least: int = 64 << 10


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """How to reach a registry; `auth_files` None: those of podman and docker."""

    trust: endpoint.Trust = field(default_factory=endpoint.Trust)
    auth_files: tuple[Path, ...] | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        what: is asked for, in words: `blob sha256:... of library/debian`.
        url: absolute, or a path at the registry.
        scopes: that a token has to have.
        body: bytes, or what makes an iterator over them: it may have to be sent again.
        ok: the statuses that are no failure.
        patient: wait for the answer as long as a registry may hash.
    """

    what: str
    method: str
    url: str
    scopes: frozenset[str] = NO_SCOPES
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Callable[[], AsyncIterator[bytes]] | None = None
    ok: frozenset[int] = frozenset({200})
    patient: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request, with its whole body."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str


class Connection:
    """The connections to one registry, for one repository; use it in an `async with`."""

    def __init__(self, registry: str, repository: str, options: ConnectionOptions) -> None:
        self.registry = registry
        self.options = options
        self._trust = options.trust
        files = options.auth_files
        self._auth = Authenticator(
            registry,
            repository,
            credentials.default_auth_files() if files is None else list(files),
            self._fetch,
            allows_plain=options.trust.plain_http,
        )
        self._base: httpx.URL | None = None
        self._lock = trio.Lock()
        self._timeout = _timeout(options.timeouts, options.timeouts.read)
        self._clients: dict[str, httpx.AsyncClient] = {}  # by the scheme

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            for client in self._clients.values():
                await client.aclose()

    def _client(self, url: httpx.URL) -> httpx.AsyncClient:
        """Return what is used for a URL: to load all certificates takes a tenth of a second."""
        scheme = url.scheme
        if scheme not in self._clients:
            is_plain = scheme == "http"
            self._clients[scheme] = httpx.AsyncClient(
                verify=False if is_plain else endpoint.tls_context(self.registry, self._trust),
                timeout=self._timeout,
                headers={"User-Agent": f"unionfuse/{__version__}", "Accept-Encoding": "identity"},
                # a proxy can not reach what listens on this machine alone
                trust_env=not endpoint.is_loopback(self.registry),
            )
        return self._clients[scheme]

    @contextlib.asynccontextmanager
    async def stream(self, ask: Ask) -> AsyncIterator[httpx.Response]:
        """Send a request; yield its answer, of which the body is still to be read.

        Raises:
            Transient: if the registry can not be reached, or is busy.
            NotFound: for status 404, unless that is in `ask.ok`.
            RegistryError: for any other status that is not in `ask.ok`.
        """
        with self.translated(ask.what):
            response = await self._follow(ask)
            try:
                if response.status_code not in ask.ok:
                    await self._fail(ask, response)
                yield response
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                    await response.aclose()

    async def call(self, ask: Ask, limit: int = MAX_DOCUMENT) -> Answer:
        """Send a request and return its answer, with at most `limit` bytes of body.

        Raises:
            Refused: if there are more.
            RegistryError: as `stream`.
        """
        patience = self.options.timeouts.verdict if ask.patient else 0
        seconds = max(self.options.timeouts.document, patience)
        with trio.move_on_after(seconds if not callable(ask.body) else float("inf")):
            async with self.stream(ask) as response:
                encoding = response.headers.get("content-encoding", "identity")
                if encoding != "identity":
                    raise RegistryError(f"{self._of(ask.what)}: sent as {encoding[:40]!r}")
                body = await self._read(response, limit)
                if body is None:
                    raise Refused(
                        f"{self._of(ask.what)}: more than {limit} bytes; no more are read"
                    )
                return Answer(response.status_code, response.headers, body, str(response.url))
        raise Transient(f"{self._of(ask.what)}: it took more than {seconds:.0f} s")

    @contextlib.contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Raise what the HTTP library raises in words of this project."""
        try:
            yield
        except httpx.TransportError as err:
            text = f"{self._of(what)}: {reason(err)}"
            if is_final(err):
                raise RegistryError(text) from None
            raise Transient(text) from None
        except (httpx.InvalidURL, httpx.HTTPError, httpx.StreamError) as err:
            raise RegistryError(f"{self._of(what)}: {err}") from None

    def _of(self, what: str) -> str:
        return f"{self.registry}: {what}"

    async def _follow(self, ask: Ask) -> httpx.Response:
        base = await self._find_base()
        url = base.join(ask.url)
        for _ in range(_MAX_REDIRECTS):
            response = await self._let_in(ask, base, url)
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or not location:
                return response
            await response.aclose()
            target = url.join(location)
            if target.scheme not in ("http", "https"):
                raise RegistryError(f"{self._of(ask.what)}: sends on to a {target.scheme} URL")
            if url.scheme == "https" and target.scheme == "http":
                raise RegistryError(
                    f"{self._of(ask.what)}: sends on to {target.host}, without TLS; refused"
                )
            url = target
        raise RegistryError(f"{self._of(ask.what)}: sends on more than {_MAX_REDIRECTS} times")

    async def _let_in(self, ask: Ask, base: httpx.URL, url: httpx.URL) -> httpx.Response:
        # Where the registry sends us on to another host, that host gets no credentials
        # (distribution-spec); it has its own, in the URL.
        if _origin(url) != _origin(base):
            return await self._send(ask, url, None)
        shown = self._auth.current(ask.scopes)
        response = await self._send(ask, url, shown)
        if response.status_code != 401:
            return response
        challenges = response.headers.get_list("www-authenticate")
        better = await self._auth.answer(challenges, ask.scopes, shown)
        if better is None:
            return response
        await response.aclose()
        return await self._send(ask, url, better)

    async def _send(self, ask: Ask, url: httpx.URL, authorization: str | None) -> httpx.Response:
        headers = dict(ask.headers)
        if authorization is not None:
            headers["Authorization"] = authorization
        timeouts = self.options.timeouts
        timeout = _timeout(timeouts, timeouts.verdict) if ask.patient else self._timeout
        body = ask.body() if callable(ask.body) else ask.body
        client = self._client(url)
        request = client.build_request(
            ask.method, url, headers=headers, content=body, timeout=timeout
        )
        return await client.send(request, stream=True, follow_redirects=False)

    async def _find_base(self) -> httpx.URL:
        async with self._lock:
            if self._base is None:
                host = endpoint.host_of(self.registry)
                scheme = "https"
                if self.options.trust.plain_http or await self._is_plain(host):
                    scheme = "http"
                self._base = httpx.URL(f"{scheme}://{host}/")
            return self._base

    async def _is_plain(self, host: str) -> bool:
        """Tell whether what answers, on this machine, is no TLS."""
        if not endpoint.is_loopback(host):
            return False
        try:
            url = httpx.URL(f"https://{host}/v2/")
            async with self._client(url).stream("GET", url, timeout=_HANDSHAKE_TIMEOUT):
                return False
        except httpx.ConnectError as err:
            cause = find_cause(err, ssl.SSLError)
            return cause is not None and not isinstance(cause, ssl.SSLCertVerificationError)
        except httpx.ConnectTimeout:
            return True  # it waits for a line that a handshake does not have

    async def _fetch(
        self, what: str, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> bytes:
        """Get a token; what is in `headers` and `body` goes to this URL and nowhere else."""
        try:
            with self.translated(what), trio.fail_after(self.options.timeouts.document):
                client = self._client(httpx.URL(url))
                request = client.build_request(method, url, headers=headers, content=body)
                response = await client.send(request, stream=True, follow_redirects=False)
                try:
                    if response.status_code != 200:
                        await self._fail(Ask(what, method, url), response)
                    data = await self._read(response, MAX_DOCUMENT)
                finally:
                    await response.aclose()
        except trio.TooSlowError:
            raise Transient(f"{self._of(what)}: it took too long") from None
        if data is None:
            raise Refused(f"{self._of(what)}: more than {MAX_DOCUMENT} bytes")
        return data

    async def _read(self, response: httpx.Response, limit: int) -> bytes | None:
        """Return the body; None if it has more than `limit` bytes."""
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > limit:
                return None
        return bytes(data)

    async def _fail(self, ask: Ask, response: httpx.Response) -> NoReturn:
        """Raise what an answer that was not wanted says."""
        status = response.status_code
        body = b""
        with contextlib.suppress(httpx.TransportError):
            body = await self._read(response, _MAX_ERROR) or b""
        code, message = said(body)
        text = f"{self._of(ask.what)}: {message or phrase(status)}"
        if status == 404:
            raise NotFound(f"{self._of(ask.what)}: not there ({code or status})")
        if status in (401, 403):
            raise RegistryError(f"{text}; {self._auth.describe()}", status=status, code=code)
        if status in _TRANSIENT:
            wait = parse_retry_after(response.headers.get("retry-after"))
            raise Transient(text, status=status, code=code, retry_after=wait)
        raise RegistryError(text, status=status, code=code)


def _timeout(timeouts: Timeouts, read: float) -> httpx.Timeout:
    return httpx.Timeout(connect=timeouts.connect, read=read, write=timeouts.write, pool=None)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
