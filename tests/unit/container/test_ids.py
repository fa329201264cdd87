from unionfuse.container.ids import IdRange, arguments, highest, mapping, subordinate

TEXT = "other:1:2\nme:100000:65536\n1001:300000:10\n# comment\nme:bad:1\nme:5:0\n"


def test_ranges_are_found_by_name_and_by_number() -> None:
    assert subordinate(TEXT, "me", 1001) == [(100000, 65536), (300000, 10)]
    assert subordinate(TEXT, "nobody", 7) == []


def test_the_user_is_root_and_subordinate_ids_follow() -> None:
    mapped = mapping(1001, [(100000, 65536), (300000, 10)])
    assert mapped == [IdRange(0, 1001, 1), IdRange(1, 100000, 65536), IdRange(65537, 300000, 10)]
    assert arguments(mapped)[:6] == ["0", "1001", "1", "1", "100000", "65536"]


def test_the_highest_id_is_read_off_the_map() -> None:
    assert highest("         0       1001          1\n         1     100000      65536\n") == 65536
    assert highest("0 0 4294967295\n") == 4294967294
    assert highest("") == -1
