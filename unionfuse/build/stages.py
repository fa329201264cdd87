"""The stages of a Dockerfile, and which of them a build needs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unionfuse.build.check import check
from unionfuse.build.errors import BuildError
from unionfuse.build.words import expand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unionfuse.build.dockerfile import Dockerfile, Instruction

SCRATCH = "scratch"
_NAME = re.compile(r"[a-z][a-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Attributes:
        number: from 0 on.
        name: after AS, in small letters; empty if it has none.
        base: a name of an image, `scratch`, or that of an earlier stage; expanded.
        base_stage: the number of that; None for an image.
        platform: of --platform, expanded; None if there is none.
        steps: what follows FROM.
    """

    number: int
    name: str
    base: str
    base_stage: int | None
    platform: str | None
    source: Instruction
    steps: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All stages of a Dockerfile.

    Attributes:
        global_args: what ARGs before the first FROM give; None for those without a value.
    """

    stages: tuple[Stage, ...]
    global_args: Mapping[str, str | None]
    escape: str

    def find(self, name: str) -> Stage | None:
        """Return the stage of this name or number, the last one that has it."""
        for stage in reversed(self.stages):
            if stage.name == name.lower() or (name.isdecimal() and stage.number == int(name)):
                return stage
        return None

    def target(self, name: str | None) -> Stage:
        """Return the stage to build: that of this name or number, or the last.

        Raises:
            BuildError: if there is none.
        """
        if name is None:
            return self.stages[-1]
        found = self.find(name)
        if found is None:
            known = (
                ", ".join(stage.name for stage in self.stages if stage.name) or "none has a name"
            )
            raise BuildError(f"no stage {name!r} in the Dockerfile; there are: {known}")
        return found

    def copied_from(self, stage: Stage, name: str) -> Stage | None:
        """Return the earlier stage that a `--from` means; None if it means an image."""
        for earlier in reversed(self.stages[: stage.number]):
            if earlier.name == name.lower() or (name.isdecimal() and earlier.number == int(name)):
                return earlier
        return None

    def needed(self, target: Stage) -> list[Stage]:
        """Return the stages that `target` needs, in their order, itself the last."""
        numbers: set[int] = set()

        def visit(stage: Stage) -> None:
            if stage.number in numbers:
                return
            numbers.add(stage.number)
            if stage.base_stage is not None:
                visit(self.stages[stage.base_stage])
            for step in stage.steps:
                name = step.flag("from")
                if name is not None and (found := self.copied_from(stage, name)) is not None:
                    visit(found)

        visit(target)
        return [self.stages[number] for number in sorted(numbers)]


def plan(
    dockerfile: Dockerfile, build_args: Mapping[str, str], platform: Mapping[str, str]
) -> Plan:
    """Divide a Dockerfile into its stages.

    Args:
        dockerfile: whose instructions are checked here.
        build_args: of the command line, in place of what ARG says.
        platform: BUILDPLATFORM and the like.

    Raises:
        BuildError: for what is wrong or not supported, with its line.
    """
    for instruction in dockerfile.instructions:
        check(instruction)
    first = next((n for n, i in enumerate(dockerfile.instructions) if i.keyword == "FROM"), None)
    if first is None:
        raise BuildError("the Dockerfile has no FROM")
    escape = dockerfile.escape
    args: dict[str, str | None] = {}
    for instruction in dockerfile.instructions[:first]:
        if instruction.keyword != "ARG":
            raise BuildError(
                f"{instruction.keyword} is before the first FROM: only ARG may be", instruction.line
            )
        for word in instruction.words:
            name, value = arg(word, instruction, {**platform, **_given(args)}, escape)
            args[name] = build_args.get(name, value)
    known = {**platform, **_given(args)}
    stages: list[Stage] = []
    steps: list[Instruction] = []
    for instruction in reversed(dockerfile.instructions[first:]):
        if instruction.keyword != "FROM":
            steps.append(instruction)
            continue
        stages.append(_stage(instruction, tuple(reversed(steps)), known, escape))
        steps = []
    return Plan(_numbered(stages[::-1]), args, escape)


def arg(
    word: str, instruction: Instruction, variables: Mapping[str, str], escape: str
) -> tuple[str, str | None]:
    """Return the name and the value of one word of an ARG, None if it has no value.

    Raises:
        BuildError: if it is no name.
    """
    text, equals, value = word.partition("=")
    name = expand(text, variables, escape, instruction.line)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise BuildError(f"ARG {word}: {name!r} is no name of a variable", instruction.line)
    return name, expand(value, variables, escape, instruction.line) if equals else None


def _given(args: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in args.items() if value is not None}


def _stage(
    source: Instruction, steps: tuple[Instruction, ...], known: Mapping[str, str], escape: str
) -> Stage:
    words, line = source.words, source.line
    name = ""
    if len(words) > 1:
        if len(words) != 3 or words[1].upper() != "AS":
            raise BuildError(f"FROM takes IMAGE [AS NAME], not {' '.join(words)}", line)
        name = words[2].lower()
        if _NAME.fullmatch(name) is None or name == SCRATCH:
            raise BuildError(f"{words[2]!r} can not be the name of a stage", line)
    base = expand(words[0], known, escape, line)
    if not base:
        raise BuildError(f"FROM {words[0]} names no image: give the ARG a value", line)
    platform = source.flag("platform")
    if platform is not None:
        platform = expand(platform, known, escape, line)
    return Stage(0, name, base, None, platform, source, steps)


def _numbered(stages: list[Stage]) -> tuple[Stage, ...]:
    """Give the stages their numbers, and find those that are the base of another."""
    numbers: dict[str, int] = {}
    found = []
    for number, stage in enumerate(stages):
        base_stage = numbers.get(stage.base.lower())
        found.append(replace(stage, number=number, base_stage=base_stage))
        if stage.name:
            if stage.name in numbers:
                raise BuildError(f"there are two stages {stage.name!r}", stage.source.line)
            numbers[stage.name] = number
    return tuple(found)
