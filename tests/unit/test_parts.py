"""How the tests are divided into what runs side by side."""

from pathlib import Path

from tests.__main__ import MOUNTING, parts

INTEGRATION = Path(__file__).parents[1] / "integration"


def test_every_file_is_in_exactly_one_part():
    inside = [Path(path) for part in parts() if part.mounts for path in part.paths]
    assert sorted(inside) == sorted(INTEGRATION.glob("test_*.py"))


def test_every_file_that_is_named_is_there():
    assert all((INTEGRATION / file).is_file() for _, files in MOUNTING for file in files)
