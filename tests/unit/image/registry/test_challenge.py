import pytest

from unionfuse.image.registry.challenge import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ('Basic realm="box"', [Challenge("basic", {"realm": "box"})]),
        (
            'Bearer realm="https://auth.example/token",service="r",scope="repository:a:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "r",
                        "scope": "repository:a:pull,push",
                    },
                )
            ],
        ),
        (
            'Negotiate, Basic realm="a, b", Bearer Realm = "c"',
            [
                Challenge("negotiate"),
                Challenge("basic", {"realm": "a, b"}),
                Challenge("bearer", {"realm": "c"}),
            ],
        ),
        (r'Basic realm="a \"b\""', [Challenge("basic", {"realm": 'a "b"'})]),
        ("Bearer realm=https://a/t,service=b", [
            Challenge("bearer", {"realm": "https://a/t", "service": "b"})
        ]),
        ('Bearer realm="never closed, x="y"', [
            Challenge("bearer", {"realm": "never closed, x="})
        ]),
        ("", []),
        (",,, ;;;", []),
        ('realm="of nothing"', []),
    ],
)  # fmt: skip
def test_challenges_are_read(header: str, challenges: list[Challenge]) -> None:
    assert parse_challenges([header]) == challenges


def test_a_long_header_of_rubbish_is_read_in_no_time() -> None:
    assert parse_challenges(['Bearer realm="' + '\\"a,=' * 20_000]) == [Challenge("bearer")]


def test_several_headers_are_several_challenges() -> None:
    found = parse_challenges(['Basic realm="a"', 'Bearer realm="b"'])
    assert [one.scheme for one in found] == ["basic", "bearer"]
