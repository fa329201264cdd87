from __future__ import annotations

import pytest

from unionfuse.build.dockerfile import Heredoc, Instruction, is_heredoc, parse, parse_trigger
from unionfuse.build.errors import BuildError


def only(text: str) -> Instruction:
    (found,) = parse(text.encode()).instructions
    return found


class TestInstructions:
    def test_a_keyword_is_in_capitals_and_the_line_is_known(self) -> None:
        first, second = parse(b"# comment\nfrom x\n\n\nrun true\n").instructions
        assert (first.keyword, first.line) == ("FROM", 2)
        assert (second.keyword, second.words, second.line) == ("RUN", ("true",), 5)

    def test_continued_lines_are_one_and_comments_in_them_are_none(self) -> None:
        found = only("RUN a && \\\n  # comment\n  b\n")
        assert found.words == ("a &&   b",)

    def test_the_escape_directive_is_heeded(self) -> None:
        found = parse(b"# syntax=x\n# escape=`\nRUN a `\n b \\\n")
        assert found.escape == "`"
        assert found.instructions[0].words == ("a  b \\",)

    def test_a_directive_after_something_else_is_a_comment(self) -> None:
        assert parse(b"# text\n# escape=`\nFROM x\n").escape == "\\"

    def test_json_is_told_from_words(self) -> None:
        assert only('RUN ["a", "b c"]').words == ("a", "b c")
        assert only('RUN ["a", "b c"]').is_json
        assert not only("RUN ['a', 'b c']").is_json

    def test_flags_are_apart(self) -> None:
        found = only("COPY --from=x --chown=1:2 a b /c")
        assert found.flags == (("from", "x"), ("chown", "1:2"))
        assert found.words == ("a", "b", "/c")
        assert found.flag("from") == "x"
        assert found.flag("chmod") is None

    def test_pairs_are_split_and_keep_their_quotes(self) -> None:
        assert only('ENV a=b c="d e"').words == ("a", "b", "c", '"d e"')
        assert only("ENV a b  c").words == ("a", "b  c")

    def test_windows_line_ends_and_a_byte_order_mark_are_nothing(self) -> None:
        assert only("\ufeffRUN a \\\r\n b\r\n").words == ("a  b",)


class TestHeredocs:
    def test_content_comes_with_the_name(self) -> None:
        found = only("COPY <<a.txt <<b /dst/\none\na.txt\ntwo\nb\n")
        assert found.heredocs == (Heredoc("a.txt", "one\n"), Heredoc("b", "two\n"))
        assert found.text == "COPY <<a.txt <<b /dst/"

    @pytest.mark.parametrize("word", ['"E"', "'E'"])
    def test_a_quoted_name_expands_nothing(self, word: str) -> None:
        assert not only(f"RUN <<{word}\n$x\nE\n").heredocs[0].expands

    def test_a_dash_takes_leading_tabs_away(self) -> None:
        assert only("RUN <<-E\n\tx\n\t\ty\n\tE\n").heredocs[0].content == "x\ny\n"

    def test_a_word_that_is_nothing_but_a_heredoc_is_known(self) -> None:
        assert is_heredoc("<<E")
        assert is_heredoc('<<-"E"')
        assert not is_heredoc("cat <<E")
        assert not is_heredoc("<<E bash")


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "said", "line"),
        [
            ("FROM x\nRUN <<E\nx\n", "unterminated heredoc", 2),
            ("FROM x\n\nENV a=b c\n", "can't find =", 3),
            ("", "no instructions", 0),
            ("FROM x\nCOPY --From=x a b\n", "no flag", 2),
        ],
    )
    def test_what_can_not_be_read_is_told_with_its_line(
        self, text: str, said: str, line: int
    ) -> None:
        with pytest.raises(BuildError, match=said) as caught:
            parse(text.encode())
        assert caught.value.line == line

    def test_what_is_no_text_is_told(self) -> None:
        with pytest.raises(BuildError, match="not UTF-8") as caught:
            parse(b"FROM x\nRUN \xff\n")
        assert caught.value.line == 2
        with pytest.raises(BuildError, match="NUL"):
            parse(b"FROM x\0")

    def test_a_trigger_has_the_line_of_its_from(self) -> None:
        assert parse_trigger("COPY . /app", 7).line == 7
        with pytest.raises(BuildError, match="ONBUILD") as caught:
            parse_trigger("ENV a", 7)
        assert caught.value.line == 7
