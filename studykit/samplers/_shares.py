"""The option `share`, and a ranking in which the best share of the pool comes first."""

from typing import Annotated

import numpy as np
from pydantic import Field

from studykit.samplers import count_of

Share = Annotated[float, Field(gt=0, le=1, description="fraction of the pool that comes first in the ranking")]


def best_share_first(scores: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Return the share with the highest scores in random order, then the others in random order, int64 [n].

    Every prefix up to the share is a random sample of it, so that budgets are nested and none of them consists of the
    extremes alone.
    """
    first = count_of(len(scores), share)
    order = np.argsort(-scores, kind="stable")
    return np.concatenate([generator.permutation(order[:first]), generator.permutation(order[first:])])
