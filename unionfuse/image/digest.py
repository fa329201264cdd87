"""Digests: what blobs, images and layers are named by (image-spec descriptor.md, "Digests")."""

from __future__ import annotations

import re
from typing import NewType

from unionfuse.image.errors import Corrupt, Malformed

try:
    # For documents. hashlib loads OpenSSL, which takes longer than to make a container's tree.
    from _sha256 import sha256  # type: ignore[import-not-found]  # no stub tells of it
except ImportError:  # from Python 3.12 on it is in another module
    from hashlib import sha256

Digest = NewType("Digest", str)
"""`sha256:` or `sha512:` and the hash in lower-case hexadecimal."""

_ENCODED = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]+)")


def parse_digest(text: str) -> Digest:
    """Return `text` as a digest.

    Raises:
        Malformed: if it is none, or of an algorithm that is not supported.
    """
    match = _DIGEST.fullmatch(text)
    if match is None or len(match[2]) != _ENCODED[match[1]]:
        raise Malformed(f"no digest: {text[:160]!r}")
    return Digest(text)


def algorithm_of(digest: Digest) -> str:
    """Return the name of the algorithm, which `hashlib.new` knows."""
    return digest.partition(":")[0]


def encoded_of(digest: Digest) -> str:
    """Return the hexadecimal part, which is safe as the name of a file."""
    return digest.partition(":")[2]


def digest_of(data: bytes | memoryview) -> Digest:
    """Return the sha256 digest of `data`, which is short: see `Digester`."""
    return Digest(f"sha256:{sha256(data).hexdigest()}")


class Digester:
    """The digest and the size of what passes by, checked at the end against what was said.

    Attributes:
        size: bytes so far.
    """

    def __init__(self, algorithm: str = "sha256") -> None:
        import hashlib  # for much data: it is four times as fast

        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self.size = 0

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> Digest:
        """Return the digest of what came so far."""
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    def check(self, digest: Digest, size: int | None, what: str) -> None:
        """Compare with what a descriptor says.

        Raises:
            Corrupt: if the size (unless None) or the digest differs.
        """
        if size is not None and self.size != size:
            raise Corrupt(f"{what} has {self.size} bytes, not the {size} that it was named with")
        found = self.digest()
        if found != digest:
            raise Corrupt(f"{what} is {found}, not {digest}")
