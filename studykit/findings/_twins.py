"""Settings that are one computation under several names, such as a mixture at the end where only one part is left."""

from collections.abc import Sequence

from studykit.findings._lines import Line


def twins_of(lines: Sequence[Line], baseline: str) -> dict[tuple[int, str], str]:
    """Return, by budget and name, the setting whose very scores a setting has in every seed and both metrics.

    It is the baseline, or the one with the shortest name. A comparison with a twin is none: it is not judged, and does
    not count among the contrasts that the others are corrected for.

    Args:
        lines: of one combination of factors.
        baseline: the name that the others are compared with.
    """
    found: dict[tuple[int, str], str] = {}
    first: dict[str, str] = {}
    for line in sorted(lines, key=lambda line: (len(line.name), line.name)):
        known = [one.by_seed for one in (line.score, line.nll) if one is not None and one.by_seed]
        if len(known) < 2:
            continue
        differs = any(value for by_seed in known for value in by_seed.values())
        values = f"{line.budget} {[sorted(by_seed.items()) for by_seed in known]}"
        stands_for_it = first.setdefault(values, line.name) if differs else baseline
        if stands_for_it != line.name:
            found[line.budget, line.name] = stands_for_it
    return found
