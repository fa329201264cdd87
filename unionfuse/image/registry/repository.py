"""One repository of a registry: its documents, and whether it has a blob (distribution-spec)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unionfuse.image import media_types
from unionfuse.image.digest import Digest, Digester, algorithm_of, parse_digest
from unionfuse.image.errors import Corrupt, Malformed
from unionfuse.image.registry.connection import Ask
from unionfuse.image.registry.retry import retrying

if TYPE_CHECKING:
    from unionfuse.image.registry.connection import Connection

_ACCEPT = ", ".join(
    (
        media_types.OCI_INDEX,
        media_types.OCI_MANIFEST,
        media_types.DOCKER_INDEX,
        media_types.DOCKER_MANIFEST,
    )
)


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index as it came.

    Attributes:
        media_type: that the registry gave it; None if it gave none.
    """

    data: bytes
    digest: Digest
    media_type: str | None


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository, to pull from or to push to.

    Attributes:
        scopes: what a token has to allow.
    """

    connection: Connection
    name: str
    scopes: frozenset[str]

    @classmethod
    def to_pull(cls, connection: Connection, name: str) -> Repository:
        """Return a repository that is only read."""
        return cls(connection, name, pull_scopes(name))

    @classmethod
    def to_push(cls, connection: Connection, name: str) -> Repository:
        """Return a repository that is written."""
        return cls(connection, name, frozenset({f"repository:{name}:pull,push"}))

    def path(self, rest: str) -> str:
        """Return the path of a resource of this repository."""
        return f"/v2/{self.name}/{rest}"

    async def document(self, tag_or_digest: str) -> Document:
        """Get a manifest or an index, verified.

        Raises:
            NotFound: if there is none.
            Corrupt: if it does not have the digest that was asked for, or was announced.
            Refused: if it is larger than MAX_DOCUMENT.
        """
        what = f"manifest {tag_or_digest} of {self.name}"
        ask = Ask(
            what,
            "GET",
            self.path(f"manifests/{tag_or_digest}"),
            scopes=self.scopes,
            headers={"Accept": _ACCEPT},
        )
        answer = await retrying(self.connection.options.retry, lambda: self.connection.call(ask))
        said = answer.headers.get("docker-content-digest")
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        digest = _verify(answer.body, tag_or_digest, said, what)
        return Document(answer.body, digest, media_type or None)

    async def put_document(
        self, tag_or_digest: str, data: bytes, media_type: str, digest: Digest
    ) -> None:
        """Upload a manifest or an index; what it names has to be there.

        Raises:
            Corrupt: if the registry says that it got another one.
        """
        what = f"manifest {tag_or_digest} of {self.name}"
        ask = Ask(
            what,
            "PUT",
            self.path(f"manifests/{tag_or_digest}"),
            scopes=self.scopes,
            headers={"Content-Type": media_type},
            body=data,
            ok=frozenset({200, 201, 202}),
            patient=True,
        )
        answer = await retrying(self.connection.options.retry, lambda: self.connection.call(ask))
        said = answer.headers.get("docker-content-digest")
        if (
            said is not None
            and algorithm_of(Digest(said)) == algorithm_of(digest)
            and said != digest
        ):
            raise Corrupt(f"{self.connection.registry}: {what} is {said[:160]} there, not {digest}")

    async def has_blob(self, digest: Digest) -> bool:
        """Tell whether a blob is there."""
        ask = Ask(
            f"blob {digest} of {self.name}",
            "HEAD",
            self.path(f"blobs/{digest}"),
            scopes=self.scopes,
            ok=frozenset({200, 404, 405}),
        )
        answer = await retrying(self.connection.options.retry, lambda: self.connection.call(ask))
        return answer.status == 200


def pull_scopes(name: str) -> frozenset[str]:
    """Return what a token has to allow to read a repository."""
    return frozenset({f"repository:{name}:pull"})


def _verify(data: bytes, asked: str, said: str | None, what: str) -> Digest:
    """Compare a document with the digest that it was asked by, and the one that came with it."""
    digest: Digest | None = None
    for claimed in (said, asked if ":" in asked else None):
        if claimed is None:
            continue
        try:
            named = parse_digest(claimed)
        except Malformed:
            raise Malformed(f"{what} came with the digest {claimed[:160]!r}") from None
        digester = Digester(algorithm_of(named))
        digester.update(data)
        digester.check(named, None, what)
        digest = named
    if digest is None:
        digester = Digester()
        digester.update(data)
        digest = digester.digest()
    return digest
