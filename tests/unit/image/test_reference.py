import pytest

from unionfuse.image.errors import BadReference
from unionfuse.image.reference import Reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:12", "docker.io/library/debian:12"),
        ("me/app", "docker.io/me/app:latest"),
        ("index.docker.io/me/app", "docker.io/me/app:latest"),
        ("quay.io/me/app:v1", "quay.io/me/app:v1"),
        ("localhost/app", "localhost/app:latest"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("host:5000/a/b/c:t", "host:5000/a/b/c:t"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}"),
        (f"debian:12@{DIGEST}", f"docker.io/library/debian:12@{DIGEST}"),
    ],
)
def test_a_name_is_read_as_docker_reads_it(text, full):
    assert str(Reference.parse(text)) == full


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "Debian", "a/B", "-a", "a//b", "a/", "/a", "a:", "a:-t", "a@", "a@sha256:1",
        "a b", "ho_st.com/a", "a" * 256, "a:" + "t" * 129, "..", "x/../y", "localhost:123456/a",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused_with_the_text(text):
    with pytest.raises(BadReference, match="is no image"):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("docker.io/library/debian:12", "debian:12"),
        ("docker.io/me/app:latest", "me/app:latest"),
        ("localhost/app:latest", "localhost/app:latest"),
        ("quay.io/me/app:v1", "quay.io/me/app:v1"),
    ],
)
def test_the_familiar_name_is_the_short_one(full, short):
    assert Reference.parse(full).familiar() == short
    assert str(Reference.parse(short)) == full
