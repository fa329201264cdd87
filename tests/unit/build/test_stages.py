from __future__ import annotations

import pytest

from unionfuse.build.dockerfile import parse
from unionfuse.build.errors import BuildError
from unionfuse.build.stages import Plan, plan


def planned(text: str, **build_args: str) -> Plan:
    return plan(parse(text.encode()), build_args, {"TARGETARCH": "amd64"})


class TestStages:
    def test_steps_go_with_their_from(self) -> None:
        found = planned("FROM a AS One\nRUN x\nFROM b\nRUN y\nRUN z\n")
        assert [stage.name for stage in found.stages] == ["one", ""]
        assert [[step.words[0] for step in stage.steps] for stage in found.stages] == [
            ["x"],
            ["y", "z"],
        ]

    def test_args_before_from_are_for_from_alone(self) -> None:
        text = "ARG V=1\nARG I=img:$V-$TARGETARCH\nFROM $I\n"
        assert planned(text).stages[0].base == "img:1-amd64"
        assert planned(text, V="2").stages[0].base == "img:2-amd64"

    def test_a_stage_can_be_the_base_of_a_later_one(self) -> None:
        found = planned("FROM a AS x\nFROM X AS y\nFROM z\n")
        assert [stage.base_stage for stage in found.stages] == [None, 0, None]

    def test_only_what_the_target_needs_is_built(self) -> None:
        found = planned(
            "FROM a AS one\nFROM a AS two\nFROM one AS three\nFROM b AS four\n"
            "COPY --from=three / /\nCOPY --from=other:1 / /\nFROM c\n"
        )
        assert [s.number for s in found.needed(found.target("four"))] == [0, 2, 3]
        assert [s.number for s in found.needed(found.target("1"))] == [1]
        assert [s.number for s in found.needed(found.target(None))] == [4]

    def test_from_means_an_earlier_stage_before_an_image(self) -> None:
        found = planned("FROM a AS x\nFROM b AS y\nFROM c AS z\n")
        stage = found.stages[1]
        assert found.copied_from(stage, "X") == found.stages[0]
        assert found.copied_from(stage, "0") == found.stages[0]
        assert found.copied_from(stage, "y") is None
        assert found.copied_from(stage, "z") is None


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("RUN x\nFROM a\n", "before the first FROM", 1),
        ("ARG a\n", "no FROM", 0),
        ("FROM a as\n", "AS NAME", 1),
        ("FROM a AS b\nFROM c AS b\n", "two stages", 2),
        ("FROM a AS 1x\n", "can not be the name", 1),
        ("FROM a AS scratch\n", "can not be the name", 1),
        ("FROM $V\n", "names no image", 1),
        ("FROM a\nFOO x\n", "unknown instruction: FOO", 2),
        ("FROM a\nCOPY --link a b\n", "COPY --link is not supported", 2),
        ("FROM a\nRUN --mount=type=cache,target=/x y\n", "RUN --mount is not supported", 2),
        ("FROM a\nRUN --network=default x\nRUN --network=x y\n", "--network=x is not supported", 3),
        ("FROM a\nCOPY --chmod=u+x a b\n", "octal", 2),
        ("FROM a\nCOPY a\n", "at least 2", 2),
        ("FROM a\nADD http://x/y /z\n", "URLs and git are not supported", 2),
        ("FROM a\nADD git@github.com:x/y.git /z\n", "URLs and git are not supported", 2),
        ("FROM a\nSHELL bash -c\n", "JSON", 2),
        ("FROM a\nONBUILD FROM x\n", "ONBUILD FROM is not allowed", 2),
        ("FROM a\nONBUILD ONBUILD RUN x\n", "ONBUILD ONBUILD is not allowed", 2),
        ("FROM a\nONBUILD NO x\n", "unknown instruction after ONBUILD", 2),
        ("FROM a\nONBUILD RUN <<E\nx\nE\n", "a heredoc in ONBUILD", 2),
        ("FROM a\nONBUILD\n", "ONBUILD takes an instruction", 2),
        ("FROM a\nUSER\n", "at least an argument", 2),
        ("FROM a\nRUN\n", "at least an argument", 2),
        ("FROM --platform a\n", "no value", 1),
        ("FROM --x=y a\n", "not supported", 1),
        ("FROM a\nCOPY --from=x <<E /y\nz\nE\n", "no heredoc", 2),
        ("FROM a\nARG 1=2\n", "", 0),
    ],
)
def test_what_is_wrong_or_not_supported_is_told_before_anything_is_done(
    text: str, said: str, line: int
) -> None:
    if not said:
        planned(text)  # an ARG of a stage is looked at when it is reached
        return
    with pytest.raises(BuildError, match=said) as caught:
        planned(text)
    assert caught.value.line == line


def test_an_unknown_target_is_told_with_those_that_there_are() -> None:
    with pytest.raises(BuildError, match=r"'x'.*there are: one"):
        planned("FROM a AS one\n").target("x")
