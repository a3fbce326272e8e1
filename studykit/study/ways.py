"""Human and synthetic data in one comparison: each of them, both mixed in every step, or one stage after the other.

names, stages = ways(
    ["{human}", "{mixed}", "{synthetic}>{human}"], {"2,000 greedy": data}, recipes=[("kd", "sft")], shares=[0.5]
)
names                                       # ["sft", "sft:50% of 2,000 greedy", "kd:2,000 greedy>sft"]
arms(names, stage_options=stages, **others)
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from studykit.errors import InputError, shown, unknown
from studykit.study.arm_stages import ArmStage

KINDS = ("human", "synthetic", "mixed")
"""What a way may hold in braces: the comparison's data, synthetic ones, or a share of these in every step."""


def ways(
    patterns: Sequence[str],
    synthetic: Mapping[str, Mapping[str, Any]],
    *,
    recipes: Sequence[Sequence[str]] = (("sft", "sft"),),
    shares: Sequence[float] = (0.5,),
) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Return the arms by their methods, each once, and the options of their stages, as `arms` takes them.

    Args:
        patterns: stages joined by `>`, each of them `{human}`, `{synthetic}` or `{mixed}`; `{synthetic}*9>{human}@0.1`
            gives nine tenths of the steps to the first one, and a tenth of the learning rate to the second.
        synthetic: data by name; a stage on them draws from the same sampler and seed as the others.
        recipes: pairs of methods, for stages on synthetic data and for all others.
        shares: of synthetic examples in a step of `{mixed}`.

    Raises:
        InputError: a pattern with another word in braces, or none; a recipe that is no pair; a share not
            between 0 and 1.
    """
    for pattern in patterns:
        for part in pattern.split(">"):
            if (kind := ArmStage.parse(part).name) not in {f"{{{kind}}}" for kind in KINDS}:
                raise unknown("stage of a way", kind, [f"{{{kind}}}" for kind in KINDS])
    if wrong := [recipe for recipe in recipes if len(recipe) != 2]:
        raise InputError(f"a recipe is a pair, the methods on synthetic and on human data; received {wrong[0]}")
    for share in shares:
        _check_share(share)
    names, stages = {}, {}
    for pattern, (first, second), name, share in product(patterns, recipes, synthetic, shares):
        alone, mixed = f"{first}:{name}", f"{second}:{share:.0%} of {name}"
        stages[alone] = {"data": dict(synthetic[name])}
        stages[mixed] = {"mix": [{"data": dict(synthetic[name]), "weight": share}]}
        names[pattern.replace(" ", "").format(human=second, synthetic=alone, mixed=mixed)] = None
    return list(names), stages


def _check_share(share: Any) -> None:
    """Refuse what is no part of a step: `{human}` and `{synthetic}` stand for a share of 0 and of 1."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise InputError(f"shares: each must be a number between 0 and 1, both excluded; received {shown(share)}")


def answers_by(
    teacher: str,
    prompts: Mapping[str, Any],
    counts: Sequence[int],
    written: Mapping[str, Mapping[str, Any]],
    **shared: Any,
) -> dict[str, dict[str, Any]]:
    """Return synthetic data by amount and by how it is written, such as "2,000 greedy".

    Args:
        teacher: that answers.
        prompts: data whose prompts it answers: source, options, split and budget.
        counts: numbers of examples drawn from its answers.
        written: by name, options of the source `synthetic`, such as {"temperature": 1.0, "min_logp": -0.2}.
        shared: options that all of them have, such as `max_new_tokens`.
    """
    options = {"teacher": teacher, "prompts": dict(prompts)} | shared
    return {
        f"{count:,} {how}": {"source": "synthetic", "options": options | dict(more), "budget": {"examples": count}}
        for count, (how, more) in product(counts, written.items())
    }
