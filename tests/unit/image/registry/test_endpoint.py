from pathlib import Path

import pytest

from unionfuse.image.errors import RegistryError
from unionfuse.image.registry.endpoint import Trust, host_of, is_loopback, tls_context


@pytest.mark.parametrize(
    "registry",
    ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5", "a.localhost"],
)
def test_what_stays_on_this_machine_is_known(registry: str) -> None:
    assert is_loopback(registry)


@pytest.mark.parametrize(
    "registry", ["docker.io", "localhost.example", "128.0.0.1", "[fe80::1]:5000", "10.0.0.1:5000"]
)
def test_what_does_not_is_known_too(registry: str) -> None:
    assert not is_loopback(registry)


def test_dockers_hub_answers_at_another_name() -> None:
    assert host_of("docker.io") == "registry-1.docker.io"
    assert host_of("quay.io") == "quay.io"


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(RegistryError, match=str(file)):
        tls_context("r.example", Trust(authority=file))


def test_a_certificate_without_its_key_is_named(tmp_path: Path) -> None:
    own = tmp_path / "r.example:5000"
    own.mkdir()
    (own / "client.cert").write_text("")
    with pytest.raises(RegistryError, match=r"client\.cert and its key"):
        tls_context("r.example:5000", Trust(directories=(tmp_path,)))


def test_certificates_of_another_registry_are_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "r.example:5000").mkdir()
    (tmp_path / "r.example:5000" / "ca.crt").write_text("no certificate")
    tls_context("r.example", Trust(directories=(tmp_path, tmp_path / "none")))
