"""Where a registry is, and by which certificates it is known.

The files are those of podman and docker (containers-certs.d(5)): in `HOST[:PORT]/` below
`~/.config/containers/certs.d`, `/etc/containers/certs.d` and `/etc/docker/certs.d`, `*.crt` are
authorities beside those of the system, `NAME.cert` with `NAME.key` is what the client shows.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from unionfuse.image.errors import RegistryError

_DOCKER_HUB = "docker.io"
_DOCKER_HUB_HOST = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe.

    Attributes:
        plain_http: speak without TLS, which nobody checks and everybody on the way can read.
        authority: a file of certificates (PEM) beside those of the system.
        directories: those with a directory for each registry, the first first.
    """

    plain_http: bool = False
    authority: Path | None = None
    directories: tuple[Path, ...] = ()


def home() -> Path:
    """Return the home of this user; for one who has none, a path with nothing in it."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull)


def default_directories() -> tuple[Path, ...]:
    """Return where podman and docker keep certificates."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home() / ".config")
    return (
        config / "containers" / "certs.d",
        Path("/etc/containers/certs.d"),
        Path("/etc/docker/certs.d"),
    )


def host_of(registry: str) -> str:
    """Return the `HOST[:PORT]` that answers for a registry."""
    return _DOCKER_HUB_HOST if registry == _DOCKER_HUB else registry


def is_loopback(registry: str) -> bool:
    """Tell whether what is sent to it stays on this machine."""
    is_bracketed = registry.startswith("[")  # [::1]:5000
    host = registry[1:].partition("]")[0] if is_bracketed else registry.partition(":")[0]
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tls_context(registry: str, trust: Trust) -> ssl.SSLContext:
    """Make what connections to a registry, and to where it sends us, are checked with.

    Raises:
        RegistryError: if a file of certificates can not be read.
    """
    context = ssl.create_default_context()
    authorities = [trust.authority] if trust.authority else []
    pairs: list[tuple[Path, Path]] = []
    for directory in trust.directories:
        own = directory / registry
        authorities += _files(own, ".crt")
        pairs += [(path, path.with_suffix(".key")) for path in _files(own, ".cert")]
    for path in authorities:
        try:
            context.load_verify_locations(cafile=path)
        except OSError as err:  # an ssl.SSLError too
            raise RegistryError(f"certificates in {path}: {_reason(err)}") from None
    for certificate, key in pairs:
        try:
            # a password would be asked for on the terminal
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as err:
            raise RegistryError(f"certificate {certificate} and its key: {_reason(err)}") from None
    return context


def _files(directory: Path, suffix: str) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == suffix)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as err:
        raise RegistryError(f"certificates in {directory}: {err.strerror}") from None


def _no_password() -> str:
    raise ValueError("it is locked with a password")


def _reason(err: Exception) -> str:
    if isinstance(err, ssl.SSLError):
        return err.reason or "it is no certificate"
    return getattr(err, "strerror", None) or str(err)
