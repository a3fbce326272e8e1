"""Which lines two places share."""

from pathlib import Path

from tools.shared_lines import find_shared_lines

RUN = [f"x{number} = {number}" for number in range(6)]


def shared(minimum: int, *files: list[str]) -> list[str]:
    return [str(pair) for pair in find_shared_lines([(Path(f"f{n}"), f) for n, f in enumerate(files)], minimum)]


def test_a_run_is_found_once_and_as_long_as_it_is():
    assert shared(4, ["a = 1", *RUN, "b = 2"], [*RUN, "c = 3"]) == ["f0:2 and f1:1: 6 lines"]
    assert shared(7, ["a = 1", *RUN, "b = 2"], [*RUN, "c = 3"]) == []


def test_indentation_blank_lines_comments_and_imports_do_not_count():
    other = ["def f():", *[part for line in RUN for part in (f"    {line}", "", "    # why")]]
    assert shared(6, RUN, other) == ["f0:1 and f1:2: 6 lines"]
    imports = [f"import m{number}" for number in range(9)]
    assert shared(3, [*imports, "a = 1"], [*imports, "b = 1"]) == []


def test_a_file_may_share_lines_with_itself_but_a_run_does_not_overlap_itself():
    assert shared(6, [*RUN, "a = 1", *RUN]) == ["f0:1 and f0:8: 6 lines"]
    assert shared(3, ["x = 1"] * 5) == []


def test_three_places_make_three_pairs():
    assert len(shared(6, RUN, RUN, RUN)) == 3
