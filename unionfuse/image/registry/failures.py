"""Why a request failed, in words for the user."""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, TypeVar

import httpx
import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
_E = TypeVar("_E", bound=BaseException)


class _ErrorEntry(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_ErrorEntry] = []


def said(body: bytes) -> tuple[str, str]:
    """Return the code and the words of an answer (distribution-spec, "Error Codes")."""
    try:
        errors = msgspec.json.decode(body, type=_Errors).errors
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "", ""
    if not errors:
        return "", ""
    code, message = (_clean(text) for text in (errors[0].code, errors[0].message))
    return code, f"{message} ({code})" if message and code else message or code


def _clean(text: str) -> str:
    """Return what a stranger said in one line of at most 200 characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:200]


def phrase(status: int) -> str:
    """Return what a status is called, for an answer that says nothing itself."""
    return f"{status} {httpx.codes.get_reason_phrase(status)}".strip()


def _causes(err: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that led to it, also out of groups."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [err]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(reversed(one.exceptions))
        waiting += [one.__context__, one.__cause__]


def find_cause(err: BaseException, kind: type[_E]) -> _E | None:
    """Return what led to an exception, if that is of this kind."""
    return next((cause for cause in _causes(err) if isinstance(cause, kind)), None)


def is_final(err: httpx.TransportError) -> bool:
    """Tell what will not be better in a second."""
    if isinstance(err, httpx.UnsupportedProtocol) or find_cause(err, ssl.SSLCertVerificationError):
        return True
    tls = find_cause(err, ssl.SSLError)
    if tls is not None and tls.reason in _NO_TLS:
        return True
    unknown = find_cause(err, socket.gaierror)
    return unknown is not None and unknown.errno != socket.EAI_AGAIN


def reason(err: httpx.TransportError) -> str:
    """Return why there was no answer."""
    if isinstance(err, httpx.TimeoutException):
        return "no answer, for too long"
    if (tls := find_cause(err, ssl.SSLCertVerificationError)) is not None:
        return f"its certificate is not trusted: {tls.verify_message}"
    if (broken := find_cause(err, ssl.SSLError)) is not None:
        if broken.reason in _NO_TLS:
            return "it speaks no TLS; without, only by choice (--plain-http)"
        return f"TLS: {broken.reason or broken}"
    if (unknown := find_cause(err, socket.gaierror)) is not None:
        return f"no such host: {unknown.strerror}"
    for cause in _causes(err):
        if isinstance(cause, OSError) and cause.errno:  # trio's own, above it, has none
            return os.strerror(cause.errno)
    return str(err) or type(err).__name__
