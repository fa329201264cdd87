import pytest

from unionfuse.image.digest import Digester, digest_of, parse_digest
from unionfuse.image.errors import Corrupt, Malformed

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_digest_of_nothing_is_the_one_of_the_specification():
    assert digest_of(b"") == EMPTY


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", EMPTY.upper(), EMPTY[:-1], EMPTY + "0", "md5:" + "0" * 32, "sha256:../../etc"],
)
def test_what_is_no_digest_is_refused(text):
    with pytest.raises(Malformed):
        parse_digest(text)


def test_content_of_another_size_is_corrupt():
    digester = Digester()
    digester.update(b"abc")
    with pytest.raises(Corrupt, match="has 3 bytes, not the 4"):
        digester.check(digest_of(b"abc"), 4, "it")


def test_content_of_another_digest_is_corrupt():
    digester = Digester()
    digester.update(b"abc")
    with pytest.raises(Corrupt, match="it is sha256:ba78"):
        digester.check(digest_of(b"abd"), 3, "it")


def test_sha512_is_checked_as_such():
    digester = Digester("sha512")
    digester.update(b"abc")
    digester.check(parse_digest(digester.digest()), 3, "it")
