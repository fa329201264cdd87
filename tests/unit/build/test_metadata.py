from __future__ import annotations

from typing import Any

import pytest

from unionfuse.build import metadata
from unionfuse.build.dockerfile import parse
from unionfuse.build.draft import Draft
from unionfuse.build.errors import BuildError


def applied(text: str, **config: Any) -> tuple[Draft, list[str]]:
    draft = Draft({"config": config})
    said = [metadata.apply(step, draft, "\\") for step in parse(text.encode()).instructions]
    return draft, said


class TestConfig:
    def test_env_takes_the_values_of_before_the_instruction(self) -> None:
        draft, said = applied('ENV A=1\nENV A=2 B=$A C="x y"\nENV D $B z\n', Env=["P=q"])
        assert draft.config["Env"] == ["P=q", "A=2", "B=1", "C=x y", "D=1 z"]
        assert said == ["ENV A=1", "ENV A=2 B=1 C=x y", "ENV D=1 z"]

    def test_an_env_goes_before_an_arg(self) -> None:
        draft = Draft({"config": {"Env": ["A=env"]}}, args={"A": "arg", "B": "arg"})
        (step,) = parse(b"USER $A-$B").instructions
        metadata.apply(step, draft, "\\")
        assert draft.config["User"] == "env-arg"

    def test_labels_are_merged(self) -> None:
        draft, said = applied('LABEL a=1 "b.c"="d e"\n', Labels={"a": "0", "z": "1"})
        assert draft.config["Labels"] == {"a": "1", "z": "1", "b.c": "d e"}
        assert said == ["LABEL a=1 b.c=d e"]

    def test_the_shell_form_is_given_to_the_shell(self) -> None:
        draft, said = applied('SHELL ["bash", "-c"]\nCMD a "b"\nENTRYPOINT c\n')
        assert draft.config["Shell"] == ["bash", "-c"]
        assert draft.config["Cmd"] == ["bash", "-c", 'a "b"']
        assert draft.config["Entrypoint"] == ["bash", "-c", "c"]
        assert said == [
            "SHELL [bash -c]",
            'CMD ["bash" "-c" "a \\"b\\""]',
            'ENTRYPOINT ["bash" "-c" "c"]',
        ]

    def test_an_entrypoint_takes_the_cmd_of_the_base_away_but_no_own_one(self) -> None:
        assert "Cmd" not in applied('ENTRYPOINT ["x"]\n', Cmd=["of base"])[0].config
        assert applied('CMD ["a"]\nENTRYPOINT ["x"]\n', Cmd=["y"])[0].config["Cmd"] == ["a"]

    def test_an_empty_entrypoint_is_none(self) -> None:
        assert applied("ENTRYPOINT []\n", Entrypoint=["a"])[0].config["Entrypoint"] == []

    def test_ports_have_their_protocol_and_may_be_a_range(self) -> None:
        draft, said = applied("ENV P=80\nEXPOSE $P 53/udp 8000-8002\n", ExposedPorts={"1/tcp": {}})
        assert list(draft.config["ExposedPorts"]) == [
            "1/tcp", "53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp",
        ]  # fmt: skip
        assert said[1].startswith("EXPOSE map[53/udp:{} 80/tcp:{} 8000/tcp:{}")

    def test_a_healthcheck_has_its_times_in_nanoseconds(self) -> None:
        draft, _ = applied(
            "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=2s --retries=3 "
            "CMD curl  x\n"
        )
        assert draft.config["Healthcheck"] == {
            "Test": ["CMD-SHELL", "curl  x"],
            "Interval": 90_000_000_000,
            "Timeout": 500_000_000,
            "StartPeriod": 2_000_000_000,
            "Retries": 3,
        }
        assert applied('HEALTHCHECK CMD ["a"]\n')[0].config["Healthcheck"]["Test"] == ["CMD", "a"]
        assert applied("HEALTHCHECK NONE\n")[0].config["Healthcheck"] == {"Test": ["NONE"]}

    def test_volumes_stopsignal_user_maintainer_and_onbuild_are_kept(self) -> None:
        draft, said = applied(
            'VOLUME /a /b\nVOLUME ["/c d"]\nSTOPSIGNAL SIGINT\nUSER a:b\nMAINTAINER me <a@b>\n'
            "ONBUILD COPY --chown=1 . /x\n"
        )
        assert list(draft.config["Volumes"]) == ["/a", "/b", "/c d"]
        assert draft.config["StopSignal"] == "SIGINT"
        assert draft.config["User"] == "a:b"
        assert draft.document["author"] == "me <a@b>"
        assert draft.config["OnBuild"] == ["COPY --chown=1 . /x"]
        assert said[0] == "VOLUME [/a /b]"
        assert said[-1] == "ONBUILD COPY --chown=1 . /x"


@pytest.mark.parametrize(
    "text",
    [
        "EXPOSE http",
        "EXPOSE 70000",
        "EXPOSE 9-1",
        "STOPSIGNAL what ever",
        "STOPSIGNAL sig-x!",
        "HEALTHCHECK --interval=soon CMD x",
        "HEALTHCHECK --retries=x CMD x",
        "HEALTHCHECK RUN x",
        "HEALTHCHECK NONE x",
        "USER $NOBODY",
        'ENV ""=x',
    ],
)
def test_what_makes_no_sense_is_told(text: str) -> None:
    with pytest.raises(BuildError):
        applied(f"{text}\n")
