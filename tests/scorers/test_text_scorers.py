"""Scorers of generated answers against values by hand and against slow computations."""

import sys
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from studykit.errors import InputError
from studykit.scorers import Item, check_scorers, metrics_of, score_items
from studykit.scorers.last_number import find_number

LABELS = ("card_arrival", "lost card", "Top-up failed", "top-up")


def item(reference: str, answer: str | None, **more) -> Item:
    return Item("a", "", reference, answer, 0.0, 1, **more)


def value(scorer, scored: Item) -> float:
    [scores] = score_items([scored], [scorer])
    [score] = scores.values()
    return score.value


def over(scorer, *pairs: tuple[str, str], **more) -> float:
    items = [item(reference, answer, **more) for reference, answer in pairs]
    [found] = [v for k, v in metrics_of(items, score_items(items, [scorer]), [scorer]).items() if k != "answers_cut"]
    return found


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        ("The answer is 12.", 12),
        ("1,234,567.5 EUR", Fraction(2469135, 2)),
        ("1, 2, 3", 3),
        ("12,34", 34),
        ("-3", -3),
        ("−3", -3),
        ("minus: -$5", -5),
        ("$-5", -5),
        ("10-3=7", 7),
        ("3-5", 5),
        ("a total of $1,200", 1200),
        ("50%", 50),
        (".5", Fraction(1, 2)),
        ("007", 7),
        ("12.50", Fraction(25, 2)),
        ("12km in 3h", 3),
        ("1e3", 1000),
        ("2.5e-1", Fraction(1, 4)),
        ("3/4", Fraction(3, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"\boxed{42}", 42),
        (r"so \boxed{42} apples after 3 days", 42),
        (r"\boxed{1} and \boxed{-\frac{1}{2}}", Fraction(-1, 2)),
        (r"\boxed{\text{12 apples}} 5", 12),
        (r"\$1{,}234", 1234),
        (r"1\,234", 1234),
        ("3 * 4 = 12\n#### 12", 12),
        ("#### 12\nChecked in 2 ways.", 12),
        ("#### none\nso 4", 4),
        ("A4", None),
        ("v2.0", None),
        ("none", None),
        ("", None),
        ("9" * 5000, None),
        ("1e999999999", 1),  # what follows is no exponent that a number has
    ],
)
def test_the_number_that_a_text_ends_in(text, number):
    assert find_number(text) == number


def test_equal_numbers_are_right_however_they_are_written():
    assert value("last_number", item("6 * 7 = 42\n#### 42", r"First 6, then \boxed{42.0}.")) == 1
    assert value("last_number", item("1,000", "1000 m")) == 1
    for wrong in ("41", "42.5", "-42", "420", "", None, "forty-two"):
        assert value("last_number", item("42", wrong)) == 0


@pytest.mark.parametrize(
    ("answer", "strict", "anywhere"),
    [
        ("card_arrival", 1, 1),
        (" Card arrival. ", 1, 1),
        ("card-arrival", 1, 1),
        ("The intent is card_arrival.", 0, 1),
        ("card_arrival or lost card", 0, 0),
        ("lost card", 0, 0),
        ("card arrivals", 0, 0),
        ("", 0, 0),
        (None, 0, 0),
    ],
)
def test_a_label_is_right_without_regard_to_case_and_punctuation(answer, strict, anywhere):
    scored = item("card_arrival", answer, choices=LABELS)
    for name in ("label", "macro_f1"):
        assert value(name, scored) == strict
        assert value({"name": name, "anywhere": True}, scored) == anywhere


def test_of_two_labels_that_begin_alike_the_longer_counts():
    scored = item("Top-up failed", "It says: top up failed!", choices=LABELS)
    assert value({"name": "label", "anywhere": True}, scored) == 1


def test_without_labels_an_answer_is_compared_with_its_reference_alone():
    assert value("label", item("yes", "Yes!")) == 1
    assert value({"name": "label", "anywhere": True}, item("yes", "Yes, it is.")) == 0


def slow_macro_f1(pairs):
    """Return the mean F1 by precision and recall, from a table of counts."""
    table, labels = Counter(pairs), sorted({reference for reference, _ in pairs})
    total = Fraction(0)
    for label in labels:
        told = sum(n for (_, answer), n in table.items() if answer == label)
        asked = sum(n for (reference, _), n in table.items() if reference == label)
        precision = Fraction(table[label, label], told) if told else Fraction(0)
        recall = Fraction(table[label, label], asked)
        total += 2 * precision * recall / (precision + recall) if table[label, label] else 0
    return float(total / len(labels))


def test_macro_f1_is_the_mean_over_labels_and_not_over_items():
    generator = np.random.default_rng(0)
    for _ in range(20):
        pairs = [
            (str(generator.choice(["a", "b", "c"], p=[0.8, 0.1, 0.1])), str(generator.choice(list("abcdx"))))
            for _ in range(30)
        ]
        assert over("macro_f1", *pairs, choices=("a", "b", "c", "d")) == pytest.approx(
            slow_macro_f1([(r, a if a != "x" else None) for r, a in pairs])
        )
    frequent = [("a", "a")] * 9 + [("b", "a")]
    assert over("label", *frequent) == 0.9
    assert over("macro_f1", *frequent) == pytest.approx((18 / 19) / 2)


def slow_rouge_l(reference, answer):
    """Return the F1 of the longest common subsequence, by trying every subsequence of the answer's words."""
    first, second = reference.lower().split(), answer.lower().split()
    longest = 0
    for chosen in range(2 ** len(second)):
        part = [word for place, word in enumerate(second) if chosen >> place & 1]
        rest = iter(first)
        if len(part) > longest and all(word in rest for word in part):
            longest = len(part)
    return 2 * longest / (len(first) + len(second)) if longest else 0.0


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("the cat sat on the mat", "the cat is on a mat"),
        ("the cat sat", "sat cat the"),
        ("The cat", "the CAT"),
        ("a b c d", "e f"),
        ("one two three four", "zero one three five four"),
    ],
)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(reference, answer):
    assert value("rouge_l", item(reference, answer)) == pytest.approx(slow_rouge_l(reference, answer))


def test_rouge_l_of_a_run_is_the_mean_and_stems_where_asked():
    assert over("rouge_l", ("a b", "a b"), ("a b", "c d")) == 0.5
    assert value("rouge_l", item("cats run", "cat running")) == 0
    assert value({"name": "rouge_l", "stemmed": True}, item("cats run", "cat running")) == 1


def slow_chrf(pairs, order=6, beta=2.0):
    """Return chrF over all pairs: counts of n-grams are summed first, orders without n-grams are left out."""
    scores = []
    for n in range(1, order + 1):
        common = told = asked = 0
        for reference, answer in pairs:
            grams = [
                Counter(t[i : i + n] for i in range(len(t) - n + 1))
                for t in (reference.replace(" ", ""), answer.replace(" ", ""))
            ]
            asked, told = asked + grams[0].total(), told + grams[1].total()
            common += (grams[0] & grams[1]).total()
        if told and asked:
            scores.append((common / told, common / asked))
    precision, recall = (sum(side) / len(scores) for side in zip(*scores, strict=True))
    both = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / both if both else 0.0


def test_chrf_is_computed_over_all_items_together():
    pairs = [
        ("Das Haus ist klein.", "Das Haus ist kleiner."),
        ("Ein langer Satz über viele Dinge, die wahr sind.", "Ein Satz."),
        ("ja ja ja ja", "ja ja ja"),
    ]
    assert over("chrf", *pairs) == pytest.approx(slow_chrf(pairs), abs=1e-6)
    for pair in pairs:
        assert value("chrf", item(*pair)) == pytest.approx(slow_chrf([pair]), abs=1e-6)
    mean = sum(slow_chrf([pair]) for pair in pairs) / 3
    assert abs(over("chrf", *pairs) - mean) > 0.01
    assert over({"name": "chrf", "word_order": 2}, *pairs) != over("chrf", *pairs)


@pytest.mark.parametrize(
    ("scorers", "scored", "message"),
    [
        (["last_number"], item("none", None), "reference of item 'a' has no number"),
        (["label"], item("lost", None, choices=LABELS), "is none of the 4 labels: 'lost'"),
        (["macro_f1"], item("a", None, choices=("a", "A")), "two labels are 'a'"),
        (["label"], item("a", None, choices=("a", "?")), "has no letter or digit"),
        (["rouge_l"], item("да", None), "score it with chrf"),
        (["exact_mach"], item("a", None), "did you mean 'exact_match'"),
        (["label", {"name": "label", "anywhere": True}], item("a", None), "'label' is named twice"),
        ([{"name": "label", "anywere": True}], item("a", None), "did you mean 'anywhere'"),
        ([{"name": "label", "anywhere": 1}], item("a", None), "anywhere must be a valid boolean"),
        ([{"anywhere": True}], item("a", None), "a scorer is a name, or"),
        ([{"name": "chrf", "word_order": 7}], item("a", None), "word_order must be less than or equal to 6"),
        (["teacher_agreement"], item("a", None), "name one as evaluation.teacher"),
        (["choice"], item("a", None), "item 'a' has 0 choices"),
        (["choice_per_token"], item("a", None, choices=("b", "c")), "reference 'a' is none of its 2 choices"),
        (["choice_calibration_error"], item("a", None, choices=("a", "a ")), "has the same choice twice"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(scorers, scored, message):
    with pytest.raises(InputError, match=message) as refused:
        check_scorers(scorers, [scored], has_teacher=False)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "package"), [("rouge_l", "rouge_score"), ("chrf", "sacrebleu")])
def test_a_missing_package_is_named_with_the_extra_that_has_it(name, package, monkeypatch):
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"needs the package {package}: pip install 'studykit\[scorers\]'"):
        check_scorers([name], [item("a", None)], has_teacher=False)
