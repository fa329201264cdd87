"""What a pull or a push tells while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unionfuse.image.digest import Digest
    from unionfuse.image.manifest import Descriptor

PRESENT = "present"
"""It was there already: nothing was transferred."""
MOUNTED = "mounted"
"""The registry had it in another repository."""
DONE = "done"


class Progress:
    """Is told what happens to each blob; this one tells nobody."""

    def begin(self, descriptor: Descriptor) -> None:
        """Take note of a blob that is needed."""

    def at(self, digest: Digest, offset: int) -> None:
        """Take note that the first `offset` bytes are transferred; it may go back."""

    def end(self, digest: Digest, outcome: str) -> None:
        """Take note that a blob is where it is to be: PRESENT, MOUNTED or DONE."""
