"""What samplers that ask models share: the models they need, and a ranking in which the best share comes first."""

from collections.abc import Sequence

import numpy as np

from studykit.errors import InputError
from studykit.likelihood import mean_logp
from studykit.models.names import ModelRef
from studykit.samplers import kept_count
from studykit.sources import Example


def likelihood(pool: Sequence[Example], model: ModelRef | None, role: str) -> np.ndarray:
    """Return the mean log-probability per response token of every example under a model, float64 [len(pool)].

    Raises:
        InputError: no model was named for that role.
    """
    if model is None:
        raise InputError(f"this choice of examples needs a {role}: name a model in its options, as {role}=...")
    return mean_logp(model, pool)


def best_share_first(scores: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Return the share with the highest scores in random order, then the others in random order, int64 [n].

    Every prefix up to the share is a random sample of what is kept, so that budgets are nested and none of them
    consists of the extremes alone.

    Raises:
        InputError: a share outside (0, 1].
    """
    kept = kept_count(len(scores), share)
    order = np.argsort(-scores, kind="stable")
    return np.concatenate([generator.permutation(order[:kept]), generator.permutation(order[kept:])])
