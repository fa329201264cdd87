"""A few of the rounds of `make crash-images`: each command is killed once."""

import random
import tempfile
from pathlib import Path

import pytest

from tests.image_crash import STEPS, Rounds
from tests.support.docker_registry import docker_registry


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_command_loses_and_damages_nothing(step: str) -> None:
    with (
        tempfile.TemporaryDirectory() as base,
        docker_registry(Path(base) / "registry") as registry,
    ):
        Rounds(Path(base), random.Random(step), registry.host).round(step)
