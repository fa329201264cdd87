"""Images go to registries and come back, beside skopeo and podman: byte by byte the same."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import clients
from tests.support import docker_registry as docker
from tests.support.commands import command, unionfuse, wait_until
from tests.support.docker_registry import DockerRegistry, docker_registry
from tests.support.images import BASE, CHANGES, as_json, layout_files, make_image, put
from tests.support.proxy import proxy
from tests.support.registry import FakeRegistry, digest, running
from unionfuse.image import media_types
from unionfuse.image.manifest import Descriptor, Platform
from unionfuse.image.reference import Reference
from unionfuse.image.registry.progress import DONE
from unionfuse.image.registry.pull import pull
from unionfuse.image.registry.push import PushOptions, push
from unionfuse.image.registry.running import run
from unionfuse.image.registry.upload import Sizes
from unionfuse.image.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.images import MadeImage

BIG = {"big": os.urandom(3 << 20), **BASE}


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("open") / "registry") as registry:
        yield registry


@pytest.fixture(scope="module")
def private_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    base = tmp_path_factory.mktemp("private") / "registry"
    with docker_registry(base, private=True) as registry:
        yield registry


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Make an image of two layers, in the layout of OCI, that skopeo reads as `oci:LAYOUT:one`."""
    return write_layout(tmp_path / "layout", make_image(BASE, CHANGES))


def write_layout(path: Path, image: MadeImage) -> Path:
    for name, data in layout_files(("one", image)).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def image(store: Path, *arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """Run `unionfuse image`; return what it prints."""
    done = unionfuse("image", "--root", store, *arguments, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo(*arguments: str | Path) -> str:
    done = command("skopeo", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def blobs_of(layout: Path) -> set[str]:
    return {path.name for path in (layout / "blobs" / "sha256").iterdir()}


def raw_digest(reference: str) -> str:
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"],
        check=True, capture_output=True, timeout=60,
    ).stdout  # fmt: skip
    return digest(raw)


@pytest.mark.parametrize(
    "options", [[], ["--format=v2s2"], ["--dest-compress-format=zstd", "--format=oci"]],
    ids=["oci", "docker", "zstd"],
)  # fmt: skip
def test_what_skopeo_brings_there_goes_round_byte_by_byte(
    options: list[str], open_registry, layout, store, tmp_path, request
) -> None:
    name = f"{open_registry.host}/{request.node.callspec.id}"
    there = f"docker://{name}:1"
    skopeo("copy", "--dest-tls-verify=false", *options, f"oci:{layout}:one", there)
    brought = raw_digest(f"{name}:1")
    assert image(store, "pull", f"{name}:1") == f"{name}:1@{brought}\n"
    assert image(store, "push", f"{name}:1", f"{name}/ours:2") == f"{name}/ours:2@{brought}\n"
    assert raw_digest(f"{name}/ours:2") == brought
    for tag, back in ((f"{name}:1", "theirs"), (f"{name}/ours:2", "ours")):
        source = f"docker://{tag}"
        skopeo(
            "copy", "--src-tls-verify=false", "--preserve-digests", source, f"dir:{tmp_path / back}"
        )
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "theirs")


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_layers_that_are_not_compressed_go_round(open_registry, store, tmp_path) -> None:
    made = make_image(BASE, CHANGES, compression="none")
    with Store.open(store) as opened:
        opened.add(Reference.parse("localhost/plain:1"), put(opened, made))
    name = f"{open_registry.host}/plain:1"
    image(store, "push", "localhost/plain:1", name)
    image(tmp_path / "other", "pull", name)
    assert raw_digest(name) == made.descriptor.digest
    assert listed(tmp_path / "other")[0]["digest"] == made.descriptor.digest


def listed(store: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(image(store, "ls", "--json"))
    return found


def test_a_second_push_mounts_what_the_registry_has(open_registry, layout, store) -> None:
    image(store, "load", layout, "--name", f"{open_registry.host}/first:1")
    image(store, "push", f"{open_registry.host}/first:1")
    again = json.loads(
        image(store, "push", "--json", f"{open_registry.host}/first:1",
              f"{open_registry.host}/second:1")
    )  # fmt: skip
    assert set(again["blobs"].values()) == {"mounted"}


def test_all_images_of_an_index_go_round(open_registry, store, tmp_path) -> None:
    name = f"{open_registry.host}/many:1"
    with Store.open(store) as opened:
        entries = []
        for architecture in ("amd64", "arm64"):
            layer = {"name": architecture.encode(), **BASE}
            made = make_image(layer, architecture=architecture)
            entry = as_json(put(opened, made))
            entries.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
        document = json.dumps(
            {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
        ).encode()
        root = Descriptor(media_types.OCI_INDEX, opened.blobs.put(document), len(document))
        opened.add(Reference.parse("localhost/many:1"), root, platform=Platform("amd64", "linux"))
    image(store, "push", "localhost/many:1", name)
    assert raw_digest(name) == root.digest
    image(tmp_path / "all", "pull", "--all-platforms", "--platform", "linux/arm64", name)
    again = image(tmp_path / "all", "push", name, f"{open_registry.host}/copy:1")
    assert again.endswith(f"@{root.digest}\n")
    image(tmp_path / "one", "pull", "--platform", "arm64", name)
    [only] = listed(tmp_path / "one")
    assert only["digest"] == entries[1]["digest"]
    done = unionfuse("image", "--root", tmp_path / "two", "pull", "--platform", "s390x", name)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "it has linux/amd64, linux/arm64" in done.stderr


def test_a_large_blob_goes_in_chunks(open_registry, store) -> None:
    made = make_image(BIG, compression="none")
    with Store.open(store) as opened:
        put(opened, made)
        options = PushOptions(sizes=Sizes(whole=1000, chunk=1 << 20))
        target = Reference.parse(f"{open_registry.host}/chunks:1")
        pushed = run(lambda: push(target, made.descriptor, opened.blobs, options))
    assert pushed.outcomes == {DONE: 2}
    assert raw_digest(str(target)) == made.descriptor.digest


def test_transfers_go_on_over_connections_that_break(open_registry, store, tmp_path) -> None:
    made = make_image(BIG, compression="none")
    with proxy(open_registry.host) as way, Store.open(store) as opened:
        reference = Reference.parse(f"{way.host}/breaking:1")
        put(opened, made)
        way.cuts = [1_500_000, 700_000]
        options = PushOptions(sizes=Sizes(whole=1000, chunk=1 << 20))
        run(lambda: push(reference, made.descriptor, opened.blobs, options))
        assert way.cut == 2
        assert raw_digest(f"{open_registry.host}/breaking:1") == made.descriptor.digest
        way.cuts = [1_500_000, 700_000]
        with Store.open(tmp_path / "other") as other:
            pulled = run(lambda: pull(reference, other.blobs))
            assert other.blobs.read(pulled.manifest.layers[0].digest) == made.tars[0]
        assert way.cut == 4


@pytest.mark.root
def test_a_pull_for_which_there_is_no_room_leaves_the_room_that_was(
    open_registry, layout, store, tmp_path
) -> None:
    big = write_layout(tmp_path / "big", make_image(BIG, compression="none"))
    for source, name in ((big, "no-room"), (layout, "room")):
        there = f"docker://{open_registry.host}/{name}:1"
        skopeo("copy", "--dest-tls-verify=false", f"oci:{source}:one", there)
    store.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(store)]
    subprocess.run(options, check=True, timeout=10)
    try:
        done = unionfuse("image", "--root", store, "pull", f"{open_registry.host}/no-room:1")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "no room is left" in done.stderr
        image(store, "pull", f"{open_registry.host}/room:1")
    finally:
        subprocess.run(["umount", str(store)], check=True, timeout=10)


def authorized(path: Path, host: str) -> Path:
    pair = base64.b64encode(f"{docker.USER}:{docker.PASSWORD}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": pair}}}))
    return path


def test_a_private_registry_is_reached_with_its_authority_and_a_login(
    private_registry, layout, store, tmp_path
) -> None:
    name = f"{private_registry.host}/team/app:1"
    authfile = authorized(tmp_path / "auth.json", f"{private_registry.host}/team")
    reach = ["--tls-ca", private_registry.authority, "--authfile", authfile]
    image(store, "load", layout, "--name", name)
    pushed = image(store, "push", *reach, name)
    assert image(tmp_path / "other", "pull", *reach, name) == pushed


def test_certificates_and_logins_are_found_where_podman_has_them(
    private_registry, layout, store, tmp_path
) -> None:
    config = tmp_path / "home" / ".config" / "containers"
    own = config / "certs.d" / private_registry.host
    own.mkdir(parents=True)
    shutil.copy(private_registry.authority, own / "ca.crt")
    authorized(config / "auth.json", private_registry.host)
    env = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": "", "XDG_RUNTIME_DIR": "/none"}
    name = f"{private_registry.host}/found:1"
    image(store, "load", layout, "--name", name)
    image(store, "push", name, env=env)


def test_without_its_authority_a_registry_is_not_trusted(private_registry, store) -> None:
    done = unionfuse("image", "--root", store, "pull", f"{private_registry.host}/team/app:1")
    assert done.returncode == 1
    assert "certificate is not trusted" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_a_login_the_files_that_were_looked_at_are_named(
    private_registry, store, tmp_path
) -> None:
    authfile = authorized(tmp_path / "auth.json", "another.example")
    reach = ["--tls-ca", private_registry.authority, "--authfile", authfile]
    done = unionfuse(
        "image", "--root", store, "pull", *reach, f"{private_registry.host}/team/app:1"
    )
    assert done.returncode == 1
    assert f"no credentials for it in {authfile}" in done.stderr


def stalled(registry: FakeRegistry, part: str) -> None:
    """Have the next request for a blob get `part` of it and then nothing more."""

    def act(handler) -> None:
        data = handler.fake.blobs[handler.path.rpartition("/")[2]]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: 2 << 20])
        handler.connection.recv(1)  # until the client is gone

    registry.fault("GET", part, act, times=1)


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_pull_that_was_ended_is_taken_up(sent, status, store) -> None:
    made = make_image(BIG, compression="none")
    layer = digest(made.tars[0])
    with running(FakeRegistry()) as registry:
        for data in made.blobs.values():
            registry.add_blob(data)
        manifest = made.blobs[made.descriptor.digest]
        registry.manifests["box", "1"] = (made.descriptor.media_type, manifest)
        stalled(registry, layer)
        arguments = ["-m", "unionfuse", "image", "--root", store, "pull", f"{registry.host}/box:1"]
        repository = Path(__file__).parents[2]
        process = subprocess.Popen([sys.executable, *arguments], cwd=repository)
        partial = store / "tmp" / f"partial-{layer.removeprefix('sha256:')}"
        wait_until(lambda: partial.exists() and partial.stat().st_size >= 1 << 20)
        process.send_signal(sent)
        assert process.wait(timeout=30) == status
        assert listed(store) == []
        image(store, "pull", f"{registry.host}/box:1")
        assert "range" in registry.asked("GET", layer)[-1].headers
    assert [each["digest"] for each in listed(store)] == [made.descriptor.digest]


@pytest.mark.clients
@pytest.mark.root
@pytest.mark.timeout(300)
def test_podman_pulls_what_was_pushed(open_registry, layout, store) -> None:
    name = f"{open_registry.host}/for-podman:1"
    image(store, "load", layout, "--name", name)
    pushed = image(store, "push", name).strip()
    with (
        clients.temporary_house() as house,
        clients.engine(house, "root", is_root=True, program=None) as engine,
    ):
        engine.podman("pull", "--quiet", "--tls-verify=false", name)
        digests = engine.podman("image", "inspect", "--format", "{{.Digest}} {{.Id}}", name)
    manifest_digest, image_id = digests.split()
    assert pushed.endswith(manifest_digest)
    assert listed(store)[0]["id"] == f"sha256:{image_id}"


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_what_was_made_here_has_no_registry(verb: str, store: Path) -> None:
    done = unionfuse("image", "--root", store, verb, "localhost/mine:1")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "names no registry" in done.stderr


@pytest.mark.parametrize("arguments", [("pull",), ("push",), ("pull", "a", "--jobs", "0")])
def test_a_command_line_without_sense_is_code_2(arguments: tuple[str, ...], store: Path) -> None:
    assert unionfuse("image", "--root", store, *arguments).returncode == 2


@pytest.mark.parametrize("is_private", [False, True])
def test_verify_gets_from_the_registry_what_is_damaged(
    request, layout, store, tmp_path, is_private
) -> None:
    registry = request.getfixturevalue("private_registry" if is_private else "open_registry")
    name = f"{registry.host}/mend:1"
    reach = []
    if is_private:
        authfile = authorized(tmp_path / "auth.json", registry.host)
        reach = ["--tls-ca", registry.authority, "--authfile", authfile]
    image(store, "load", layout, "--name", name)
    image(store, "push", *reach, name)
    damaged = max((store / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + b"x")
    image(store, "verify", "--repair", *reach)
    assert damaged.read_bytes() == content
