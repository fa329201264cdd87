"""What is not supported, told before anything is done."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unionfuse.build.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unionfuse.build.dockerfile import Instruction

_URL = re.compile(r"(?:https?|ftp|git|ssh)://|git@|.*\.git(?:#.*)?$", re.IGNORECASE)
_ANY = 1 << 30


@dataclass(frozen=True, slots=True)
class _Rule:
    """What an instruction may have.

    Attributes:
        least, most: words.
        flags: those that are known, each with a value.
        json: whether the words have to be a JSON list.
    """

    least: int = 1
    most: int = _ANY
    flags: frozenset[str] = frozenset()
    json: bool = False


_RULES = {
    "ADD": _Rule(2, flags=frozenset({"chown", "chmod"})),
    "ARG": _Rule(),
    "CMD": _Rule(0),
    "COPY": _Rule(2, flags=frozenset({"from", "chown", "chmod"})),
    "ENTRYPOINT": _Rule(0),
    "ENV": _Rule(2),
    "EXPOSE": _Rule(),
    "FROM": _Rule(1, 3, frozenset({"platform"})),
    "HEALTHCHECK": _Rule(
        flags=frozenset({"interval", "timeout", "start-period", "start-interval", "retries"})
    ),
    "LABEL": _Rule(2),
    "MAINTAINER": _Rule(1, 1),
    "ONBUILD": _Rule(0),
    "RUN": _Rule(flags=frozenset({"network"})),
    "SHELL": _Rule(json=True),
    "STOPSIGNAL": _Rule(1, 1),
    "USER": _Rule(1, 1),
    "VOLUME": _Rule(),
    "WORKDIR": _Rule(1, 1),
}
_NOT_IN_ONBUILD = ("ONBUILD", "FROM", "MAINTAINER")
_MODE = re.compile(r"[0-7]{1,4}")


def check(instruction: Instruction) -> None:
    """Look at one instruction.

    Raises:
        BuildError: if it is none, or has what is not supported.
    """
    keyword, line = instruction.keyword, instruction.line
    rule = _RULES.get(keyword)
    if rule is None:
        raise BuildError(f"unknown instruction: {keyword}", line)
    if keyword == "ONBUILD":
        _check_onbuild(instruction)
        return
    for name, value in instruction.flags:
        if name not in rule.flags:
            raise BuildError(f"{keyword} --{name} is not supported", line)
        if not value:
            raise BuildError(f"{keyword} --{name} has no value", line)
    _check_words(instruction, rule)
    if keyword in ("COPY", "ADD"):
        _check_copy(instruction)
    elif keyword == "RUN":
        _check_run(instruction)
    elif instruction.heredocs:
        raise BuildError(f"{keyword} takes no heredoc", line)


def _check_words(instruction: Instruction, rule: _Rule) -> None:
    keyword, words, line = instruction.keyword, instruction.words, instruction.line
    if len(words) < rule.least or (rule.least and not words[0]):
        wanted = "an argument" if rule.least == 1 else f"{rule.least} arguments"
        raise BuildError(f"{keyword} takes at least {wanted}", line)
    if len(words) > rule.most:
        raise BuildError(f"{keyword} has too many arguments: {' '.join(words)}", line)
    if rule.json and not instruction.is_json:
        raise BuildError(f"{keyword} takes a JSON list of strings", line)


def _check_copy(instruction: Instruction) -> None:
    keyword, line = instruction.keyword, instruction.line
    mode = instruction.flag("chmod")
    if mode is not None and "$" not in mode:
        parse_mode(mode, instruction)
    if keyword == "ADD":
        refuse_urls(instruction.words[:-1], line)
    if instruction.heredocs and instruction.flag("from"):
        raise BuildError(f"{keyword} --from takes no heredoc", line)


def refuse_urls(words: Sequence[str], line: int) -> None:
    """Look at what an ADD takes, as it is written or with its variables replaced.

    Raises:
        BuildError: if one is a URL or a place of git.
    """
    for word in words:
        if _URL.match(word):
            raise BuildError(f"ADD of {word}: URLs and git are not supported", line)


def parse_mode(text: str, instruction: Instruction) -> int:
    """Read the value of a --chmod.

    Raises:
        BuildError: if it is none.
    """
    if _MODE.fullmatch(text) is None:
        raise BuildError(
            f"{instruction.keyword} --chmod={text} is not supported: give octal digits",
            instruction.line,
        )
    return int(text, 8)


def _check_run(instruction: Instruction) -> None:
    network = instruction.flag("network")
    if network not in (None, "default", "none", "host"):
        raise BuildError(
            f"RUN --network={network} is not supported: none or host", instruction.line
        )
    if instruction.is_json and instruction.heredocs:
        raise BuildError("RUN with a JSON list takes no heredoc", instruction.line)


def _check_onbuild(instruction: Instruction) -> None:
    words = instruction.rest.split(None, 1)
    if not words:
        raise BuildError("ONBUILD takes an instruction", instruction.line)
    trigger = words[0].upper()
    if trigger in _NOT_IN_ONBUILD:
        raise BuildError(f"ONBUILD {trigger} is not allowed", instruction.line)
    if trigger not in _RULES:
        raise BuildError(f"unknown instruction after ONBUILD: {words[0]}", instruction.line)
    if len(words) > 1 and "<<" in words[1]:
        raise BuildError("a heredoc in ONBUILD is not supported", instruction.line)
