"""Arms of a comparison by short names: `kd`, `taid:linear` (with options of its own), `sft>gkd` (half the steps each).

stages("sft>gkd", stage, options={"gkd": {"lmbda": 1.0}}, offered={"max_new_tokens": 16})
"""

from collections.abc import Mapping
from typing import Any

from studykit.methods import takes


def stages(
    arm: str, stage: Mapping[str, Any], *, options: Mapping[str, Mapping[str, Any]], offered: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the plain stages of one arm.

    Args:
        arm: methods joined by `>`, each perhaps with a label behind `:`.
        stage: what all arms share; its `steps` are divided among the arm's stages.
        options: of single methods, by the name they have in an arm, label and all.
        offered: options that every method gets which has them.

    Raises:
        InputError: an unknown method.

    >>> [(s["method"], s["steps"]) for s in stages("sft>kd", {"steps": 301}, options={}, offered={})]
    [('sft', 151), ('kd', 150)]
    """
    parts = arm.split(">")
    share, more = divmod(stage["steps"], len(parts))
    made = []
    for number, part in enumerate(parts):
        method = part.partition(":")[0]
        own = {name: value for name, value in offered.items() if takes(method, name)} | dict(options.get(part, {}))
        made.append({**stage, "method": method, "method_options": own, "steps": share + (number < more)})
    return made
