"""A setting that is another one under a second name is shown, and neither judged nor counted."""

from contrast_rows import frame_of, runs

from studykit.findings.divergences import divergences

KD, REVERSE = [20.0, 22.0, 24.0], [10.0, 11.0, 15.0]
TAUGHT = {"teacher": "a"}


def frame(*more):
    return frame_of(
        runs("sft", [12.0, 12.0, 13.0]), runs("kd", KD, **TAUGHT), runs("reverse_kd", REVERSE, **TAUGHT), *more
    )


def gkd(beta, points, budget=500):
    return runs("gkd", points, budget=budget, **TAUGHT, **{"method_options.beta": beta})


def test_the_ends_of_a_family_count_once():
    alone, both = divergences(frame()), divergences(frame(gkd(0, KD), gkd(1, REVERSE)))
    assert both.verdicts == alone.verdicts
    assert both.sentence == alone.sentence
    verdicts = both.table.set_index("divergence")["verdict"]
    assert verdicts["gkd (beta=0)"] == "same as kd"
    assert verdicts["gkd (beta=1)"] == "same as reverse_kd"
    assert verdicts["reverse_kd"] == str(alone.verdicts["reverse_kd at 500 examples"])
    assert [line.get("twin") for line in both.numbers["lines"]].count("kd") == 1


def test_what_is_equal_in_most_seeds_only_is_judged():
    found = divergences(frame(gkd(0.5, [*KD[:2], 25.0])))
    assert "gkd at 500 examples" in found.verdicts


def test_twins_are_of_one_budget():
    found = divergences(frame(runs("kd", REVERSE, budget=5000, **TAUGHT), gkd(0, KD, budget=5000)))
    assert "gkd at 5,000 examples" in found.verdicts
