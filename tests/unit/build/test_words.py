from __future__ import annotations

import pytest

from unionfuse.build.errors import BuildError
from unionfuse.build.words import expand, expand_text, expand_to_words

KNOWN = {"A": "a", "EMPTY": "", "SPACED": "x y", "A1_b": "long"}


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("plain", "plain"),
        ("$A", "a"),
        ("${A}b", "ab"),
        ("x$A/$A1_b.$", "xa/long.$"),
        ("$NONE|${NONE}", "|"),
        ("\\$A", "$A"),
        ("a\\ b\\\\", "a b\\"),
        ("'$A \"'", '$A "'),
        ('"$A \'"', "a '"),
        ('"\\$A \\" \\n"', '$A " \\n'),
        ("pre'mid'\"post\"", "premidpost"),
        ("${NONE:-b}${EMPTY:-c}${A:-d}", "bca"),
        ("${NONE-b}${EMPTY-c}${A-d}", "ba"),
        ("${NONE:+b}${EMPTY:+c}${A:+d}", "d"),
        ("${NONE+b}${EMPTY+c}${A+d}", "cd"),
        ("${NONE:-$A}", "a"),
        ("${NONE:-${EMPTY:-deep}}", "deep"),
        ("${NONE:-'q }'}", "q }"),
        ("${A:?no}", "a"),
        ("$SPACED", "x y"),
        ("end\\", "end\\"),
        ("$1$2", ""),
    ],
)
def test_a_word_is_what_the_reference_says(word: str, expanded: str) -> None:
    assert expand(word, KNOWN) == expanded


def test_another_escape_leaves_backslashes_alone() -> None:
    assert expand("C:\\$A`$A", KNOWN, "`") == "C:\\a$A"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("'a", "no end of the quote"),
        ('"a', "no end of the quote"),
        ("${A", "not supported"),
        ("${A:-b", "no }"),
        ("${}", "no name"),
        ("${A#x}", "not supported"),
        ("${A/x/y}", "not supported"),
        ("${NONE:?give one}", "NONE: give one"),
        ("${NONE?}", "NONE: is not set"),
        ("${EMPTY:?}", "EMPTY"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_line(word: str, said: str) -> None:
    with pytest.raises(BuildError, match=said) as caught:
        expand(word, KNOWN, line=4)
    assert caught.value.line == 4


def test_a_variable_can_be_several_words() -> None:
    assert expand_to_words("$SPACED", KNOWN) == ["x", "y"]


def test_in_a_heredoc_quotes_mean_nothing() -> None:
    assert expand_text("'$A' \"${A}\" \\$A \\x\n", KNOWN) == "'a' \"a\" $A \\x\n"
