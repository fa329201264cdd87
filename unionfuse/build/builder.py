"""A build: the stages that are needed, step by step, each from the cache if nothing has changed.

What a step comes to is known by a key of all that it depends on: the stack of layers and the
config so far, the instruction with its variables replaced, the values of ARG that a RUN sees, the
content of what is copied. A step whose layer comes out the same as ever leads to the same keys
after it, however it was made.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
from typing import TYPE_CHECKING, Any, Self

import msgspec

from unionfuse.build import metadata, running, sources, stages
from unionfuse.build.check import check, parse_mode, refuse_urls
from unionfuse.build.copying import Copying, Inline, copy, make_directory
from unionfuse.build.dockerfile import is_heredoc, parse_trigger
from unionfuse.build.draft import Draft, now
from unionfuse.build.errors import BuildError
from unionfuse.build.ignore import Ignore
from unionfuse.build.layering import Workshop
from unionfuse.build.options import PREDEFINED, Options, Report, platform_args
from unionfuse.build.words import expand, expand_text
from unionfuse.container import users
from unionfuse.container.errors import ContainerError
from unionfuse.image import media_types
from unionfuse.image.errors import ImageError
from unionfuse.image.making.config import source_date_epoch
from unionfuse.image.manifest import Descriptor
from unionfuse.image.platforms import parse_platform
from unionfuse.image.store.build_cache import BuildCache, Record
from unionfuse.image.store.store import unnamed_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from unionfuse.build.dockerfile import Instruction
    from unionfuse.build.layering import Change
    from unionfuse.build.sources import Source, Tree
    from unionfuse.build.stages import Plan, Stage
    from unionfuse.image.reference import Reference
    from unionfuse.image.store.image import Image, Layer
    from unionfuse.image.store.store import Store

_KEY_VERSION = 1


class Builder:
    """One build; use it in a `with`."""

    def __init__(
        self, store: Store, context: Tree, plan: Plan, options: Options, report: Report
    ) -> None:
        """Prepare to build.

        Preconditions:
            This process is in namespaces of its own (`container.namespaces.enter`).
        """
        self._store = store
        self._context = context
        self._plan = plan
        self._options = options
        self._report = report
        self._epoch = source_date_epoch()
        self._cache = BuildCache(store.places.root)
        self._platform_args = platform_args(options.platform)
        self._done: dict[int, Draft] = {}
        self._workshop = Workshop(store)

    def __enter__(self) -> Self:
        self._workshop.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._workshop.__exit__()

    def build(self, target: Stage) -> Draft:
        """Build the stages that `target` needs, and return it.

        Raises:
            BuildError, ContainerError: if a step fails.
            ImageError: of the store.
        """
        for stage in self._plan.needed(target):
            self._done[stage.number] = self._stage(stage)
        draft = self._done[target.number]
        if self._options.labels:
            labels = {**(draft.config.get("Labels") or {}), **self._options.labels}
            draft.config["Labels"] = labels
        return draft

    def _stage(self, stage: Stage) -> Draft:
        name = stage.name or ("" if len(self._plan.stages) == 1 else f"stage-{stage.number}")
        where = f"{name} " if name else ""
        total = len(stage.steps) + 1
        self._report.step(f"{where}1/{total}", stage.source.text)
        draft = self._begin(stage)
        for number, text in enumerate(draft.config.pop("OnBuild", None) or ()):
            trigger = parse_trigger(text, stage.source.line)
            check(trigger)
            self._report.step(f"{where}1/{total} trigger {number + 1}", trigger.text)
            self._step(trigger, draft, stage)
        for number, step in enumerate(stage.steps, 2):
            self._report.step(f"{where}{number}/{total}", step.text)
            self._step(step, draft, stage)
        return draft

    def _begin(self, stage: Stage) -> Draft:
        if stage.base_stage is not None:
            return self._done[stage.base_stage].branch()
        platform = self._options.platform
        line = stage.source.line
        try:
            if stage.platform is not None:
                platform = parse_platform(stage.platform)
            if stage.base == stages.SCRATCH:
                return Draft.scratch(platform)
            image = self._options.find_image(stage.base, platform)
            self._store.unpack(image)
        except ImageError as err:
            raise BuildError(f"FROM {stage.base}: {err}", line) from None
        return Draft.of_image(image)

    def _step(self, step: Instruction, draft: Draft, stage: Stage) -> None:
        try:
            if step.keyword == "RUN":
                self._run(step, draft)
            elif step.keyword in ("COPY", "ADD"):
                self._copy(step, draft, stage)
            elif step.keyword == "WORKDIR":
                self._workdir(step, draft)
            elif step.keyword == "ARG":
                self._arg(step, draft)
            else:
                created_by = metadata.apply(step, draft, self._plan.escape)
                self._plain(draft, created_by)
        except (ContainerError, ImageError) as err:
            raise BuildError(f"{step.keyword}: {err}", step.line) from None
        except OSError as err:
            named = (
                f"{os.fsdecode(err.filename)}: " if isinstance(err.filename, str | bytes) else ""
            )
            text = f"{step.keyword}: {named}{err.strerror or err}"
            raise BuildError(text, step.line) from None

    # Steps that change the config alone

    def _plain(self, draft: Draft, created_by: str) -> None:
        key = self._key(draft, ["config", created_by])
        record = self._cached(key)
        if record is None:
            record = Record(now(self._epoch))
            self._cache.put(key, record)
        draft.note(created_by, record.created, None)

    def _arg(self, step: Instruction, draft: Draft) -> None:
        given = self._options.build_args
        shown = []
        for word in step.words:
            name, value = stages.arg(word, step, draft.variables(), self._plan.escape)
            if name in given:
                value = given[name]
            elif value is None:
                value = self._plan.global_args.get(name, self._platform_args.get(name))
            if value is not None:
                draft.args[name] = value
            shown.append(name if value is None else f"{name}={value}")
        self._plain(draft, f"ARG {' '.join(shown)}")

    # Steps that change files

    def _run(self, step: Instruction, draft: Draft) -> None:
        arguments, script = _run_arguments(step, draft.shell)
        args = [f"{name}={value}" for name, value in draft.args.items()]
        shown = [*([f"|{len(args)}", *args] if args else []), *arguments]
        network = step.flag("network") or "default"
        network = self._options.network if network == "default" else network
        proxies = {
            name: value for name, value in self._options.build_args.items() if name in PREDEFINED
        }
        command = running.Command(
            arguments=tuple(arguments),
            env=tuple(f"{k}={v}" for k, v in {**proxies, **draft.variables()}.items()),
            user=draft.config.get("User") or "",
            workdir=draft.workdir,
            network=network,
            script=script,
        )

        def work(change: Change) -> None:
            running.run(change, command, self._report.output, step.line)

        self._layered(
            draft,
            ["RUN", arguments, script, args, network],
            f"RUN {' '.join(shown)} # buildkit",
            work,
            network=network,
        )

    def _workdir(self, step: Instruction, draft: Draft) -> None:
        given = expand(step.words[0], draft.variables(), self._plan.escape, step.line)
        if not given:
            raise BuildError("WORKDIR names no directory", step.line)
        path = posixpath.normpath(posixpath.join("/", draft.workdir, given))
        path = "/" + path.lstrip("/")

        def work(change: Change) -> None:
            # what is made belongs to USER, as with podman and BuildKit
            user = running.user_of(change.merged, draft.config.get("User") or "")
            make_directory(str(change.merged), path, (user.uid, user.gid), step.line)

        self._layered(
            draft,
            ["WORKDIR", path],
            f"WORKDIR {path}",
            work,
        )
        draft.config["WorkingDir"] = path

    def _copy(self, step: Instruction, draft: Draft, stage: Stage) -> None:
        variables, escape, line = draft.variables(), self._plan.escape, step.line
        heredocs = {heredoc.name: heredoc for heredoc in step.heredocs}
        *given, target = (
            word if heredocs and is_heredoc(word) else expand(word, variables, escape, line)
            for word in step.words
        )
        if not target:
            raise BuildError(f"{step.keyword} names no place to copy to", line)
        inline = [
            Inline(
                heredoc.name,
                (
                    expand_text(heredoc.content, variables, escape, line)
                    if heredoc.expands
                    else heredoc.content
                ).encode(),
            )
            for heredoc in step.heredocs
        ]
        patterns = [word for word in given if not (heredocs and is_heredoc(word))]
        if step.keyword == "ADD":
            refuse_urls(patterns, line)
        flags = {
            name: expand(value or "", variables, escape, line)
            for name, value in step.flags
            if name != "from"
        }
        shown = "".join(f" --{name}={value}" for name, value in flags.items())
        created_by = f"{step.keyword}{shown} {' '.join([*given, target])} # buildkit"
        mode = parse_mode(flags["chmod"], step) if "chmod" in flags else None
        place = target if target.startswith("/") else f"{draft.workdir.rstrip('/')}/{target}"
        with self._sources(step, stage, patterns) as found:
            digest = sources.content_digest(found) if found else ""

            def work(change: Change) -> None:
                owner = _owner(change.merged, flags["chown"], line) if "chown" in flags else None
                copying = Copying([*found, *inline], place, owner, mode, step.keyword == "ADD")
                copy(str(change.merged), copying, line)

            content = [(each.name, each.data.decode()) for each in inline]
            self._layered(
                draft,
                [step.keyword, patterns, [s.name for s in found], place, flags, content, digest],
                created_by,
                work,
            )

    @contextlib.contextmanager
    def _sources(
        self, step: Instruction, stage: Stage, patterns: list[str]
    ) -> Iterator[list[Source]]:
        """Yield what is copied, open."""
        if not patterns:
            yield []
            return
        with self._tree(step, stage) as tree:
            found = sources.find(tree, patterns, step.line)
            try:
                yield found
            finally:
                sources.close(found)

    @contextlib.contextmanager
    def _tree(self, step: Instruction, stage: Stage) -> Iterator[Tree]:
        """Yield where a COPY takes from: the context, or the tree of a stage or an image."""
        name = step.flag("from")
        if name is None:
            yield self._context
            return
        earlier = self._plan.copied_from(stage, name)
        if earlier is not None:
            lowers = self._lowers(self._done[earlier.number].stack)
        else:
            image = self._options.find_image(name, self._options.platform)
            lowers = list(self._store.unpack(image))
        with self._workshop.reading(lowers) as merged:
            fd = os.open(merged, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield sources.Tree(fd, Ignore(), keeps_owners=True)
            finally:
                os.close(fd)

    # Layers and the cache

    def _layered(
        self,
        draft: Draft,
        parts: list[Any],
        created_by: str,
        work: Callable[[Change], None],
        *,
        network: str | None = None,
    ) -> None:
        """Do a step that changes files, or take it from the cache.

        Args:
            draft: gets the layer.
            parts: what the step depends on, besides what there is already.
            created_by: for the history.
            work: does it, in a tree that is mounted.
            network: of a step that runs something; None for others.
        """
        key = self._key(draft, parts)
        record = self._cached(key)
        layer = None if record is None else self._cached_layer(draft, record)
        if record is None or (record.descriptor is not None and layer is None):
            layer = self._new_layer(draft, work, network)
            record = Record(now(self._epoch))
            if layer is not None:
                record = msgspec.structs.replace(
                    record,
                    descriptor=layer.descriptor,
                    diff_id=layer.diff_id,
                    chain_id=layer.chain_id,
                )
            self._cache.put(key, record)
        else:
            self._report.cached()
        draft.note(created_by, record.created, layer)

    def _new_layer(
        self, draft: Draft, work: Callable[[Change], None], network: str | None
    ) -> Layer | None:
        lowers = self._lowers(draft.stack)
        above: Sequence[Path] = ()
        if network is not None:
            above = (running.write_init(self._workshop.place(), lowers, network),)
        with self._workshop.changing(lowers, above) as change:
            work(change)
        if network is not None:
            running.forget_init(change)
        made = self._workshop.layer_of(change, self._options.compression)
        self._workshop.clear(change)
        if made is None:
            return None
        layer = draft.next_layer(made.descriptor, made.diff_id)
        self._unpack([*draft.stack, layer])
        return layer

    def _cached(self, key: str) -> Record | None:
        return self._cache.get(key) if self._options.use_cache else None

    def _cached_layer(self, draft: Draft, record: Record) -> Layer | None:
        """Return the layer of a record, unpacked; None if the store does not have it any more."""
        if record.descriptor is None or record.diff_id is None:
            return None
        layer = draft.next_layer(record.descriptor, record.diff_id)
        if layer.chain_id != record.chain_id or layer.descriptor.digest not in self._store.blobs:
            return None
        try:
            self._unpack([*draft.stack, layer])
        except ImageError:  # damaged: `image verify` tells of it, and here it is made anew
            return None
        return layer

    def _key(self, draft: Draft, parts: list[Any]) -> str:
        known = [
            _KEY_VERSION,
            draft.chain_id,
            draft.document,
            self._epoch,
            self._options.compression,
            parts,
        ]
        return hashlib.sha256(msgspec.json.encode(known, order="sorted")).hexdigest()

    def _lowers(self, stack: Sequence[Layer]) -> list[Path]:
        """Return the trees of layers, the topmost first."""
        return [directory / "fs" for directory in reversed(self._unpack(stack))]

    def _unpack(self, stack: Sequence[Layer]) -> list[Path]:
        """Return the directories of layers, the bottom first; what is not unpacked is."""
        below: list[Path] = []
        for layer in stack:
            unpacked = self._store.unpack_layer(layer, below)
            assert unpacked is not None, "what is below is known"
            below.append(unpacked.directory)
        return below


def _run_arguments(step: Instruction, shell: tuple[str, ...]) -> tuple[list[str], str | None]:
    """Return the command of a RUN; a script instead if it names its own interpreter."""
    if step.is_json:
        return list(step.words), None
    text = step.words[0]
    if not step.heredocs:
        return [*shell, text], None
    if is_heredoc(text):
        content = step.heredocs[0].content
        if content.startswith("#!"):
            return [f"<<{step.heredocs[0].name}"], content
        return [*shell, content], None
    # the shell itself has to make sense of it
    for heredoc in step.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
    return [*shell, text], None


def _owner(merged: Path, text: str, line: int) -> tuple[int, int]:
    """Return the uid and gid of a --chown, by the files of the image.

    A uid alone is the gid as well; of a name alone it is the group that passwd has.
    """
    fd = os.open(merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        accounts = users.read_accounts(fd)
    finally:
        os.close(fd)
    if not text or text.startswith(":"):
        raise BuildError(f"--chown={text} names no user", line)
    try:
        user = users.resolve(text, *accounts)
    except ContainerError as err:
        raise BuildError(f"--chown={text}: {err}", line) from None
    if text.isdecimal():
        return user.uid, user.uid
    return user.uid, user.gid


def publish(store: Store, draft: Draft, references: Sequence[Reference]) -> Image:
    """Put an image into the store and name it; one without a name is named by its id.

    Raises:
        StoreError: if there is no room.
    """
    config = draft.encoded_config(now(source_date_epoch()))
    config_digest = store.blobs.put(config)
    manifest = draft.encoded_manifest(config_digest, len(config))
    descriptor = Descriptor(media_types.OCI_MANIFEST, store.blobs.put(manifest), len(manifest))
    names = references or [unnamed_reference(store.complete(descriptor))]
    for reference in names:
        image = store.add(reference, descriptor)
    return image
