"""How much a layer may be: what a stranger's can cost before it is refused."""

from __future__ import annotations

from unionfuse.image.errors import Refused
from unionfuse.record import record


@record
class Limits:
    """What an image can go over only by intent.

    Attributes:
        entries: names in a layer, with the directories that have to be made for them.
        duplicates: entries for a name that the layer has had before (layer.md forbids them).
        total_bytes: of the uncompressed tar, and of its files with the holes in them.
        ratio: of uncompressed to compressed bytes, once there are `ratio_from` of the first.
        path_bytes: of one name; the kernel's PATH_MAX, over which other tools can not go.
        depth: components of one name.
        names_bytes: of all names, and of the paths of all directories.
        header_bytes: of one extended header, and of a sparse map.
    """

    entries: int = 2_000_000
    duplicates: int = 10_000
    total_bytes: int = 1 << 38
    ratio: int = 200
    ratio_from: int = 1 << 30
    path_bytes: int = 4_096
    depth: int = 500
    names_bytes: int = 1 << 28
    header_bytes: int = 1 << 20

    def check_stream(self, uncompressed: int, compressed: int) -> None:
        """Refuse a stream that has become too large by now.

        Raises:
            Refused: saying which limit it is.
        """
        if uncompressed > self.total_bytes:
            raise Refused(f"the layer has more than {self.total_bytes} bytes")
        if uncompressed > self.ratio_from and uncompressed > self.ratio * compressed:
            raise Refused(f"the layer is more than {self.ratio} times as large as its blob")
