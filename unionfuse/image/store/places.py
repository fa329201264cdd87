"""Where a store is, and what is where in it.

    ROOT/store.db                  names of images, sizes of layers (database.py)
    ROOT/index.json, oci-layout    the names once more: ROOT is an image layout (image-layout.md)
    ROOT/blobs/sha256/HEX          documents and compressed layers (blobs.py)
    ROOT/layers/ALG-HEX/           a layer by its diff_id: fs/, index and facts.json (unpacking.py)
    ROOT/layers/chain-ALG-HEX/     one whose tar lacks directories, by chain_id, likewise
    ROOT/reserve                   room for what rm and gc write where there is no other left
    ROOT/lock                      held while something is put to use, or is removed (lease.py)
    ROOT/seccomp                   a filter of system calls, to be used again (container/filters.py)
    ROOT/containers/               what is made of images, and what that needs (container/state.py)
    ROOT/tmp/                      what is not complete, and leases; locked by who is at work on it

What is in blobs/ and layers/ is complete: it got there by one rename.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from unionfuse.image.errors import StoreError
from unionfuse.image.store.blobs import as_store_error
from unionfuse.record import record

ENVIRONMENT = "UNIONFUSE_ROOT"
SYSTEM_ROOT = Path("/var/lib/unionfuse")
_NAME = "unionfuse"
_RESERVE_BYTES = 256 << 10  # SQLite alone takes 100 KiB
_MUCH = 4  # times as much has to be free for it
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def default_root(*, is_root: bool) -> Path:
    """Return where the store of this user is: $UNIONFUSE_ROOT, /var/lib or the user's data.

    Raises:
        StoreError: if the user has no home.
    """
    if given := os.environ.get(ENVIRONMENT):
        return Path(given)
    if is_root:
        return SYSTEM_ROOT
    if data := os.environ.get("XDG_DATA_HOME"):
        return Path(data, _NAME)
    try:
        return Path.home() / ".local/share" / _NAME
    except RuntimeError:
        raise StoreError("this user has no home for a store: set $UNIONFUSE_ROOT") from None


@record
class Places:
    """The paths in a store."""

    root: Path

    @property
    def database(self) -> Path:
        """The names of images and facts about layers."""
        return self.root / "store.db"

    @property
    def index(self) -> Path:
        """The names of images, as an image layout has them."""
        return self.root / "index.json"

    @property
    def blobs(self) -> Path:
        """Documents and compressed layers."""
        return self.root / "blobs"

    @property
    def layers(self) -> Path:
        """Unpacked layers."""
        return self.root / "layers"

    @property
    def tmp(self) -> Path:
        """What is not complete, and leases."""
        return self.root / "tmp"

    @property
    def containers(self) -> Path:
        """What is made of images; each says in `uses/` what it needs."""
        return self.root / "containers"

    @property
    def lock(self) -> Path:
        """The file whose lock keeps removing apart from putting to use."""
        return self.root / "lock"

    @property
    def reserve(self) -> Path:
        """A file that is only there to be removed where there is no room."""
        return self.root / "reserve"

    def use_reserve(self) -> None:
        """Give room for what makes room; the next command puts it aside again."""
        self.reserve.unlink(missing_ok=True)

    def _fill_reserve(self) -> None:
        room = os.statvfs(self.root)
        if room.f_bavail * room.f_frsize < _MUCH * _RESERVE_BYTES:
            return  # other commands need it
        with contextlib.suppress(OSError):
            fd = os.open(self.reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, _RESERVE_BYTES)
            except OSError:
                self.reserve.unlink()
            finally:
                os.close(fd)

    def make(self) -> None:
        """Make the directories; they may be there.

        Raises:
            StoreError: if that is not possible.
        """
        try:
            # Layers have setuid programs and world-writable files: nobody else is to reach them.
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in (self.blobs, self.layers, self.tmp):
                directory.mkdir(mode=0o755, exist_ok=True)
            layout = self.root / "oci-layout"
            if not layout.exists():
                layout.write_bytes(_LAYOUT)
            self.lock.touch(mode=0o600)
            if not self.reserve.exists():
                self._fill_reserve()
        except OSError as err:
            known = as_store_error(err)
            if isinstance(known, StoreError):
                raise known from None
            raise StoreError(f"no store can be at {self.root}: {err.strerror}") from None
