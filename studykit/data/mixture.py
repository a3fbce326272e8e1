"""Several parts of data in every optimizer step, each with its share.

    mixed = mix([human, synthetic], weights=[0.75, 0.25], by="examples")
    mixed.encoded, mixed.shares, mixed.manifest["mix"]

Shares by tokens are of the response tokens: a part whose answers are twice as long gets half as many examples.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from studykit.chat import Encoded
from studykit.data.stage_data import StageData
from studykit.sources import content_hash


def mix(parts: Sequence[StageData], weights: Sequence[float], by: str) -> StageData:
    """Return the examples of all parts, one part after the other, with the share that each has of a step's examples.

    Args:
        parts: each as drawn from its own source.
        weights: their shares, which sum to 1.
        by: "examples" or "tokens": what they are shares of.
    """
    shares = np.array(weights)
    if by == "tokens":
        shares = shares / [part.encoded.response_tokens.mean() for part in parts]
        shares = shares / shares.sum()
    examples = [example for part in parts for example in part.examples]
    sequences = [part.encoded.ids_of(i) for part in parts for i in range(len(part.encoded))]
    masks = [part.encoded.supervised_of(i) for part in parts for i in range(len(part.encoded))]
    manifests = [
        {"weight": weight, "by": by, "share": round(float(share), 6)} | part.manifest
        for weight, share, part in zip(weights, shares, parts, strict=True)
    ]
    sizes = tuple(len(part.examples) for part in parts)
    return StageData(
        examples,
        Encoded.of(sequences, masks),
        _joined(manifests) | {"examples_sha256": content_hash(examples), "mix": manifests},
        content_hash(examples) if any(part.selected_sha256 for part in parts) else None,
        tuple(example for part in parts for example in part.drawn),
        tuple(zip(sizes, shares.tolist(), strict=True)),
    )


def _joined(manifests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the counts of all parts together."""
    counts = (
        "pool_examples",
        "examples",
        "response_tokens",
        "sequences",
        "answers",
        "answers_left_out",
        "scored_tokens",
    )
    joined: dict[str, Any] = {
        name: sum(part.get(name, 0) for part in manifests) for name in counts if any(name in part for part in manifests)
    }
    for name in ("by_source", "budget_by_annotator", "dropped"):
        if any(name in part for part in manifests):
            total = sum((Counter(part.get(name, {})) for part in manifests), Counter[str]())
            joined[name] = dict(sorted(total.items()))
    return joined
