"""Names of images: `[HOST[:PORT]/]NAME[/NAME...][:TAG][@DIGEST]`, as docker and podman read them.

The grammar of names and tags is distribution-spec's. A name without a host is one of
`docker.io`, and there one without a `/` is in `library/`; without tag and digest, `latest` is
meant.
"""

from __future__ import annotations

import re

from unionfuse.image.digest import Digest, parse_digest
from unionfuse.image.errors import BadReference, Malformed
from unionfuse.record import record, replace

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
LOCALHOST = "localhost"
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
    r"|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
_NAME = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_MAX_NAME = 255


@record
class Reference:
    """The name of an image.

    Attributes:
        registry: host, with `:PORT` if one was given; `localhost` for what was made here.
        repository: the name in it, e.g. `library/debian`.
        tag: None if there is only a digest.
        digest: None if there is only a tag.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read what a user types.

        Raises:
            BadReference: if it is no name of an image.
        """
        rest, at, digest_text = text.partition("@")
        try:
            digest = parse_digest(digest_text) if at else None
        except Malformed as err:
            raise BadReference(f"{text!r} is no image: {err}") from None
        tag = None
        head, colon, last = rest.rpartition(":")
        if colon and "/" not in last:
            rest, tag = head, last
            if _TAG.fullmatch(tag) is None:
                raise BadReference(f"{text!r} is no image: {tag!r} is no tag")
        registry, repository = _split(rest)
        if _HOST.fullmatch(registry) is None:
            raise BadReference(f"{text!r} is no image: {registry!r} is no host")
        if len(repository) > _MAX_NAME or _NAME.fullmatch(repository) is None:
            hint = "; names have no capitals" if repository != repository.lower() else ""
            raise BadReference(f"{text!r} is no image: {repository!r} is no name{hint}")
        if tag is None and digest is None:
            tag = DEFAULT_TAG
        return cls(registry, repository, tag, digest)

    @property
    def name(self) -> str:
        """The name without tag and digest."""
        return f"{self.registry}/{self.repository}"

    def with_tag(self, tag: str | None) -> Reference:
        """Return the same name with another tag."""
        return replace(self, tag=tag)

    def with_digest(self, digest: Digest) -> Reference:
        """Return the same name with another digest."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"

    def familiar(self) -> str:
        """Return it as short as it can be typed."""
        full = str(self)
        for prefix in (f"{DEFAULT_REGISTRY}/library/", f"{DEFAULT_REGISTRY}/"):
            if full.startswith(prefix) and _split(full.removeprefix(prefix))[0] == DEFAULT_REGISTRY:
                return full.removeprefix(prefix)
        return full


def _split(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    # docker's rule: a first part with a dot or a port, or localhost, is a host
    if slash and ("." in first or ":" in first or first == LOCALHOST or first != first.lower()):
        return ("docker.io" if first == "index.docker.io" else first), rest
    return DEFAULT_REGISTRY, text if slash else f"library/{text}"
