"""How long a server is wanted."""

from __future__ import annotations

import pytest

from unionfuse.cli.forkserver import client


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("0", 0),
        ("-1", -1),
        ("", 30),
        ("long", 30),
        ("nan", 30),
        ("inf", 30),
    ],
)
def test_what_makes_no_sense_is_as_if_it_was_not_set(
    text: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(client.SECONDS, text)
    assert client.waiting_seconds() == seconds


def test_where_none_is_wanted_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(client.SECONDS, "0")
    monkeypatch.setattr(client.rundir, "find", lambda: pytest.fail("looked for one"))
    assert client.run("overlay", []) is None
