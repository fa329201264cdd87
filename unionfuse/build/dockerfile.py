"""A Dockerfile as instructions.

It is read by the package `dockerfile`, which is BuildKit's parser: heredocs, the escape directive,
flags and continued lines are as docker has them. That parser is in Go, whose threads would keep
this process from making namespaces, so it runs in a child.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from unionfuse.build.errors import BuildError

MAX_BYTES = 4 << 20
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC = re.compile(r"\d*<<(-?)\s*([^<]*)$")
_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A file that stands in the Dockerfile itself.

    Attributes:
        name: the word after `<<`, without quotes.
        content: without the leading tabs that `<<-` takes away.
        expands: whether variables in it mean something: the word has no quotes.
    """

    name: str
    content: str
    expands: bool = True


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        keyword: in capitals.
        words: what follows, split as the instruction has it; quotes and variables are as written.
        flags: in their order, `--name` without a value as None.
        is_json: whether the words were given as a JSON list.
        line: its first one, from 1 on.
        text: the whole, without line breaks.
    """

    keyword: str
    words: tuple[str, ...]
    line: int
    text: str
    flags: tuple[tuple[str, str | None], ...] = ()
    is_json: bool = False
    heredocs: tuple[Heredoc, ...] = ()

    def flag(self, name: str) -> str | None:
        """Return the value of a flag, None if it is not given."""
        return next((value for known, value in self.flags if known == name), None)

    @property
    def rest(self) -> str:
        """What follows the keyword, as it is written."""
        return self.text[len(self.keyword) :].strip()


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """All of a Dockerfile.

    Attributes:
        escape: what takes the meaning of the next character away.
    """

    instructions: tuple[Instruction, ...]
    escape: str = "\\"


class _Parsed(msgspec.Struct, array_like=True):
    """One instruction as the child tells it."""

    cmd: str
    sub_cmd: str | None
    is_json: bool
    original: str
    line: int
    flags: tuple[str, ...]
    value: tuple[str, ...]
    heredocs: tuple[tuple[str, str], ...]


class _Answer(msgspec.Struct):
    """What the child has to say: instructions, or why there are none."""

    parsed: tuple[_Parsed, ...] = ()
    problem: str = ""
    line: int = 0


def parse(data: bytes) -> Dockerfile:
    """Read a Dockerfile.

    Raises:
        BuildError: if it is none.
    """
    if len(data) > MAX_BYTES:
        raise BuildError(f"the Dockerfile has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise BuildError(
            "the Dockerfile is not UTF-8", data.count(b"\n", 0, err.start) + 1
        ) from None
    if "\0" in text:
        raise BuildError(
            "the Dockerfile has a NUL in it", text.count("\n", 0, text.index("\0")) + 1
        )
    answer = msgspec.json.decode(_in_child(text), type=_Answer)
    if answer.problem:
        raise BuildError(answer.problem, answer.line)
    escape = _directives(text).get("escape", "\\")
    return Dockerfile(tuple(map(_instruction, answer.parsed)), escape)


def parse_trigger(text: str, line: int) -> Instruction:
    """Read what an ONBUILD has left; errors are told with the line of the FROM.

    Raises:
        BuildError: if it is no instruction.
    """
    try:
        (found,) = parse(text.encode()).instructions
    except (BuildError, ValueError) as err:
        raise BuildError(f"ONBUILD {text!r} of the base image: {err}", line) from None
    return replace(found, line=line)


def _instruction(parsed: _Parsed) -> Instruction:
    keyword = parsed.cmd.upper()
    flags = []
    for text in parsed.flags:
        match = _FLAG.fullmatch(text)
        if match is None:
            raise BuildError(f"{keyword}: {text!r} is no flag", parsed.line)
        flags.append((match[1], match[2]))
    lines = parsed.original.split("\n", 1)[0]
    return Instruction(
        keyword=keyword,
        words=parsed.value,
        line=parsed.line,
        text=lines.strip(),
        flags=tuple(flags),
        is_json=parsed.is_json,
        heredocs=tuple(_heredocs(parsed, lines)),
    )


def _heredocs(parsed: _Parsed, text: str) -> list[Heredoc]:
    """Return the heredocs, with what the parser leaves out: quotes, and tabs to take away."""
    found = []
    position = 0
    for name, content in parsed.heredocs:
        # they stand in their order, each as `<<` and its name in quotes or not
        pattern = re.compile(rf"<<(-?)\s*(\\?[\"']?){re.escape(name)}")
        match = pattern.search(text, position)
        if match is None:
            raise BuildError(
                f"{parsed.cmd}: the name of the heredoc {name} is not understood", parsed.line
            )
        position = match.end()
        if match[1]:
            content = re.sub(r"^\t+", "", content, flags=re.MULTILINE)
        found.append(Heredoc(name, content, expands=not match[2]))
    return found


def is_heredoc(word: str) -> bool:
    """Tell whether a word is that which begins a heredoc, and nothing else."""
    match = _HEREDOC.fullmatch(word)
    return match is not None and len(match[2].split()) == 1


def _directives(text: str) -> dict[str, str]:
    """Return the parser directives: comments `name=value` before anything else."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None or match[1].lower() in found:
            break
        found[match[1].lower()] = match[2]
    return found


def _in_child(text: str) -> bytes:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            with open(writer, "wb") as pipe:
                pipe.write(msgspec.json.encode(_answer(text)))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    if not data:
        raise BuildError("the Dockerfile can not be read: its parser has ended")
    return data


def _answer(text: str) -> _Answer:
    try:
        import dockerfile
    except ImportError:
        return _Answer(
            problem="the package `dockerfile`, which reads Dockerfiles, is not installed: "
            "pip install dockerfile (where there is no wheel for the machine, it needs Go)"
        )
    try:
        commands: tuple[Any, ...] = dockerfile.parse_string(text)
    except dockerfile.GoParseError as err:
        return _Answer(problem=str(err), line=_line_of(text, str(err), dockerfile))
    return _Answer(
        tuple(
            _Parsed(
                c.cmd, c.sub_cmd, c.json, c.original, c.start_line, c.flags, c.value,
                tuple((h.name, h.content) for h in c.heredocs),
            )
            for c in commands
        )
    )  # fmt: skip


def _line_of(text: str, problem: str, parser: Any) -> int:  # noqa: ANN401 - a module
    """Find the line of an error that the parser tells without: it is there as soon as that is."""
    lines = text.splitlines(keepends=True)
    for number in range(1, len(lines) + 1):
        try:
            parser.parse_string("".join(lines[:number]))
        except parser.GoParseError as err:
            if str(err) == problem:
                return number
    return 0
