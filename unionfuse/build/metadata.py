"""The instructions that change the config and no file; each returns its text in the history.

The texts are BuildKit's, so that `history` of an image looks the same whoever has made it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from unionfuse.build.errors import BuildError
from unionfuse.build.words import expand, expand_to_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from unionfuse.build.dockerfile import Instruction
    from unionfuse.build.draft import Draft

_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?")
_SIGNAL = re.compile(r"(?:SIG)?[A-Z][A-Z0-9+-]*|\d+")
_DURATION = re.compile(r"((?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+)|0")
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip


def apply(instruction: Instruction, draft: Draft, escape: str) -> str:
    """Change the config as an instruction says; return what the history tells of it.

    Raises:
        BuildError: if the instruction makes no sense.
    """
    return HANDLERS[instruction.keyword](instruction, draft, escape)


def _expanded(instruction: Instruction, draft: Draft, escape: str) -> list[str]:
    variables = draft.variables()
    return [expand(word, variables, escape, instruction.line) for word in instruction.words]


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    return list(zip(words[::2], words[1::2], strict=True))


def _env(instruction: Instruction, draft: Draft, escape: str) -> str:
    # all values are of before the instruction
    pairs = _pairs(_expanded(instruction, draft, escape))
    for name, value in pairs:
        if not name:
            raise BuildError("ENV of a variable without a name", instruction.line)
        draft.set_env(name, value)
    return "ENV " + " ".join(f"{name}={value}" for name, value in pairs)


def _label(instruction: Instruction, draft: Draft, escape: str) -> str:
    pairs = _pairs(_expanded(instruction, draft, escape))
    draft.config["Labels"] = {**(draft.config.get("Labels") or {}), **dict(pairs)}
    return "LABEL " + " ".join(f"{name}={value}" for name, value in pairs)


def _maintainer(instruction: Instruction, draft: Draft, escape: str) -> str:
    draft.document["author"] = instruction.words[0]
    return f"MAINTAINER {instruction.words[0]}"


def _command(instruction: Instruction, draft: Draft) -> list[str]:
    """Return the command of a CMD or an ENTRYPOINT."""
    if instruction.is_json:
        return list(instruction.words)
    if not instruction.words or not instruction.words[0]:
        return []
    return [*draft.shell, instruction.words[0]]


def _cmd(instruction: Instruction, draft: Draft, escape: str) -> str:
    command = _command(instruction, draft)
    draft.config["Cmd"] = command
    draft.cmd_is_own = True
    return f"CMD {quoted(command)}"


def _entrypoint(instruction: Instruction, draft: Draft, escape: str) -> str:
    command = _command(instruction, draft)
    draft.config["Entrypoint"] = command
    if not draft.cmd_is_own:
        # that of the base was meant for another entrypoint (reference, "CMD and ENTRYPOINT")
        draft.config.pop("Cmd", None)
    return f"ENTRYPOINT {quoted(command)}"


def _user(instruction: Instruction, draft: Draft, escape: str) -> str:
    (user,) = _expanded(instruction, draft, escape)
    if not user:
        raise BuildError("USER names nobody", instruction.line)
    draft.config["User"] = user
    return f"USER {user}"


def _expose(instruction: Instruction, draft: Draft, escape: str) -> str:
    variables = draft.variables()
    ports = dict(draft.config.get("ExposedPorts") or {})
    added: list[str] = []
    for word in instruction.words:
        for text in expand_to_words(word, variables, escape, instruction.line):
            match = _PORT.fullmatch(text)
            if match is None:
                raise BuildError(f"EXPOSE {text}: no port", instruction.line)
            first, last = int(match[1]), int(match[2] or match[1])
            if not 0 < first <= last < 1 << 16:
                raise BuildError(f"EXPOSE {text}: no port", instruction.line)
            added += [f"{port}/{match[3] or 'tcp'}" for port in range(first, last + 1)]
    for port in added:
        ports[port] = {}
    draft.config["ExposedPorts"] = dict(sorted(ports.items()))
    return "EXPOSE map[" + " ".join(f"{port}:{{}}" for port in sorted(added)) + "]"


def _volume(instruction: Instruction, draft: Draft, escape: str) -> str:
    paths = _expanded(instruction, draft, escape)
    if not all(paths):
        raise BuildError("VOLUME without a path", instruction.line)
    draft.config["Volumes"] = {**(draft.config.get("Volumes") or {}), **{p: {} for p in paths}}
    return f"VOLUME [{' '.join(paths)}]"


def _stopsignal(instruction: Instruction, draft: Draft, escape: str) -> str:
    (signal,) = _expanded(instruction, draft, escape)
    if _SIGNAL.fullmatch(signal) is None:
        raise BuildError(f"STOPSIGNAL {signal}: no signal", instruction.line)
    draft.config["StopSignal"] = signal
    return f"STOPSIGNAL {signal}"


def _shell(instruction: Instruction, draft: Draft, escape: str) -> str:
    draft.config["Shell"] = list(instruction.words)
    return f"SHELL [{' '.join(instruction.words)}]"


def _onbuild(instruction: Instruction, draft: Draft, escape: str) -> str:
    draft.config["OnBuild"] = [*(draft.config.get("OnBuild") or ()), instruction.rest]
    return f"ONBUILD {instruction.rest}"


def _healthcheck(instruction: Instruction, draft: Draft, escape: str) -> str:
    kind = instruction.words[0].upper()
    if kind == "NONE":
        if len(instruction.words) > 1 or instruction.flags:
            raise BuildError("HEALTHCHECK NONE takes nothing", instruction.line)
        draft.config["Healthcheck"] = {"Test": ["NONE"]}
        return "HEALTHCHECK NONE"
    if kind != "CMD" or len(instruction.words) < 2:
        raise BuildError("HEALTHCHECK takes CMD and a command, or NONE", instruction.line)
    words = list(instruction.words[1:])
    check: dict[str, Any] = {"Test": ["CMD" if instruction.is_json else "CMD-SHELL", *words]}
    for flag, key in (
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start-period", "StartPeriod"),
        ("start-interval", "StartInterval"),
    ):
        text = instruction.flag(flag)
        if text is not None:
            check[key] = _nanoseconds(text, flag, instruction)
    retries = instruction.flag("retries")
    if retries is not None:
        if not retries.isdecimal():
            raise BuildError(f"HEALTHCHECK --retries={retries}: no number", instruction.line)
        check["Retries"] = int(retries)
    draft.config["Healthcheck"] = check
    return instruction.text


def _nanoseconds(text: str, flag: str, instruction: Instruction) -> int:
    """Read a duration as Go has it: `1m30s`."""
    if _DURATION.fullmatch(text) is None:
        raise BuildError(f"HEALTHCHECK --{flag}={text}: no duration, like 1m30s", instruction.line)
    return round(sum(float(n) * _NANOSECONDS[unit] for n, unit in _PARTS.findall(text)))


def quoted(words: list[str]) -> str:
    """Return a list as Go prints it with %q."""
    return "[" + " ".join(json.dumps(word, ensure_ascii=False) for word in words) + "]"


HANDLERS: dict[str, Callable[[Instruction, Draft, str], str]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
}
"""What each instruction of this kind does."""
