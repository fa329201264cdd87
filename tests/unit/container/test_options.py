from pathlib import Path

import pytest

from unionfuse.container.errors import ContainerError
from unionfuse.container.names import check_name, new_name
from unionfuse.container.options import (
    Bind,
    Tmpfs,
    parse_bind,
    parse_env,
    parse_size,
    parse_tmpfs,
    refuse_duplicates,
)
from unionfuse.container.signals import parse_signal


def test_a_volume_is_a_source_a_target_and_a_mode(tmp_path: Path) -> None:
    assert parse_bind(f"{tmp_path}:/data/:ro") == Bind(str(tmp_path), "/data", read_only=True)
    assert parse_bind(f"{tmp_path}:/data") == Bind(str(tmp_path), "/data")


@pytest.mark.parametrize(
    "text", ["/", "/x", "/x:", ":/y", "/tmp:y", "/tmp:/", "/tmp:/y:rx", "name:/y", "/no-such:/y"]
)
def test_a_volume_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ContainerError):
        parse_bind(text)


def test_two_mounts_on_one_place_are_refused(tmp_path: Path) -> None:
    volume = parse_bind(f"{tmp_path}:/there/")
    refuse_duplicates([volume, volume, parse_tmpfs("/other")])
    with pytest.raises(ContainerError, match="two mounts on /there"):
        refuse_duplicates([volume, parse_tmpfs("/there")])


def test_a_tmpfs_has_options() -> None:
    assert parse_tmpfs("/run:size=1m,mode=700") == Tmpfs("/run", ("size=1m", "mode=700"))
    with pytest.raises(ContainerError):
        parse_tmpfs("run")


@pytest.mark.parametrize(
    ("text", "size"), [("64m", 64 << 20), ("1G", 1 << 30), ("5", 5), ("2kb", 2048)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1.5g", "0", "64mib"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ContainerError):
        parse_size(text)


def test_a_variable_without_a_value_has_that_of_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "1")
    monkeypatch.delenv("NOT_HERE", raising=False)
    assert (parse_env("A=b=c"), parse_env("HERE"), parse_env("NOT_HERE")) == (
        "A=b=c",
        "HERE=1",
        None,
    )
    with pytest.raises(ContainerError):
        parse_env("=x")


@pytest.mark.parametrize(
    ("text", "number"), [("TERM", 15), ("sigint", 2), ("9", 9), ("SIGRTMIN+3", 37)]
)
def test_signals_have_names_and_numbers(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "SIGNOPE", "0", "99", "RTMIN+99", "SIG_IGN"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(ContainerError):
        parse_signal(text)


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a b", ".", "x" * 129])
def test_a_name_that_could_be_mistaken_is_refused(name: str) -> None:
    with pytest.raises(ContainerError):
        check_name(name)


def test_a_name_that_is_made_up_is_one() -> None:
    assert check_name(new_name())
