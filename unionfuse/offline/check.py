"""Check an upper and its workdir: the parts that do it, put together."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unionfuse.layer.directory import LayerDir
from unionfuse.layer.stack import UPPER
from unionfuse.offline.check_upper import UpperCheck
from unionfuse.offline.check_workdir import WorkdirCheck
from unionfuse.offline.entries import namespace_of
from unionfuse.offline.errors import OfflineError
from unionfuse.offline.findings import SUPERFLUOUS, Finding
from unionfuse.offline.holders import held, holder_of
from unionfuse.offline.layers import opened, workdir_of
from unionfuse.offline.origins import Origins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unionfuse.layer.stack import LayerStack

WITHOUT_LOWERS = (
    "without --lower nothing was checked that the lowers alone can tell: whiteouts over nothing, "
    "where redirects, metacopies and origins lead"
)


@dataclass(frozen=True, slots=True)
class Request:
    """What to check. Paths may be relative.

    Attributes:
        upper: the upper.
        lowers: topmost first; empty if they are not known.
        workdir: None for the default one, which need not be there.
        tells_superfluous: whether marks are told that change nothing, as overlayfs leaves them.
        repairs: whether what can be mended without a guess is mended.
    """

    upper: bytes
    lowers: list[bytes]
    workdir: bytes | None = None
    tells_superfluous: bool = False
    repairs: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finding, and what became of it.

    Attributes:
        finding: the finding.
        is_mended: whether it was mended.
        failure: why it could not be; None if that was not tried.
    """

    finding: Finding
    is_mended: bool = False
    failure: str | None = None


class Check:
    """One check.

    Attributes:
        notes: what was not checked, and why; complete when all outcomes were yielded.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self.notes: list[str] = []

    def outcomes(self) -> Iterator[Outcome]:
        """Yield what is found, after mending it if that is wanted.

        Raises:
            OfflineError: if the layers can not be opened, or are in use and to be mended.
            OSError: what is met in reading them.
        """
        request = self._request
        with contextlib.ExitStack() as stack:
            layers = stack.enter_context(opened(request.upper, request.lowers))
            workdir = self._workdir_path()
            if request.repairs:
                stack.enter_context(held(request.upper, workdir))
            for finding in self._findings(layers, workdir):
                if request.tells_superfluous or finding.kind not in SUPERFLUOUS:
                    yield _mended(finding) if request.repairs else Outcome(finding)

    def _findings(self, layers: LayerStack, workdir: bytes | None) -> Iterator[Finding]:
        assert layers.upper is not None, "it was asked for"
        request = self._request
        holder = None if request.repairs else holder_of(request.upper, workdir)
        if holder is not None:
            self.notes.append(f"{holder}: what is found may be what it is working on")
        own = namespace_of(layers.upper)
        with contextlib.ExitStack() as stack:
            origins = None
            if request.lowers:
                origins = stack.enter_context(Origins(layers.lowers))
            else:
                self.notes.append(WITHOUT_LOWERS)
            if workdir is not None:
                fd = os.open(workdir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                root = LayerDir.root(UPPER, fd, layers.fds)
                try:
                    yield from WorkdirCheck(
                        root, own, origins, is_in_use=holder is not None
                    ).findings()
                except PermissionError as err:
                    self.notes.append(f"workdir {os.fsdecode(workdir)}: {err.strerror}")
            yield from UpperCheck(layers, own, origins).findings()
            if origins is not None and not origins.may_open:
                self.notes.append("whether origins are stale only root can check")

    def _workdir_path(self) -> bytes | None:
        given = self._request.workdir
        path = workdir_of(self._request.upper) if given is None else given
        if os.path.isdir(path):
            return path
        if given is not None:
            raise OfflineError(f"workdir {os.fsdecode(path)}: no such directory")
        self.notes.append(f"no workdir {os.fsdecode(path)}: give --workdir to have it checked")
        return None


def _mended(finding: Finding) -> Outcome:
    if finding.mend is None:
        return Outcome(finding)
    try:
        finding.mend.run()
    except OSError as err:
        return Outcome(finding, failure=err.strerror or str(err))
    return Outcome(finding, is_mended=True)
