"""Held-out items that a run is trained on: a score on them says what was memorised, not what was learned."""

from collections.abc import Sequence
from dataclasses import replace

from studykit.data import Inputs
from studykit.data.overlap import Kind
from studykit.errors import InputError
from studykit.results import ItemCounts
from studykit.sources import Example, content_hash
from studykit.spec import Data, RunSpec
from studykit.training.resolved import ResolvedEvaluation, ResolvedRun


def check_decontaminate(spec: RunSpec) -> None:
    """Refuse to leave held-out items out where there are none, and among the held-out items themselves.

    Raises:
        InputError: naming the place.
    """
    for number, stage in enumerate(spec.stages):
        parts = [data for data, _ in stage.parts] + ([stage.validation] if stage.validation is not None else [])
        for data in parts:
            if data.decontaminate and not spec.evaluation:
                raise InputError(
                    f"stages.{number}: decontaminate leaves the evaluation's items out, and there is no "
                    "evaluation: name one, or leave `decontaminate` away"
                )
    if any(evaluation.data.decontaminate for evaluation in spec.evaluation):
        raise InputError("evaluation.data.decontaminate is not used: set it in the data of the stages")


def pin_decontaminated(data: Data, kept: Sequence[Example]) -> Data:
    """Return data with the hash of the examples that `decontaminate` leaves.

    Args:
        data: of a stage.
        kept: the examples that its budget is drawn from.

    Raises:
        InputError: it is pinned to others: those that were left for other held-out items.
    """
    sha256 = content_hash(kept) if data.decontaminate else None
    if data.decontaminated_sha256 not in (None, sha256):
        raise InputError(
            "what is trained on was decontaminated for other held-out items than these: train again, with an "
            "evaluation of these items too"
        )
    return data.model_copy(update={"decontaminated_sha256": sha256})


def count_held_out(run: ResolvedRun, inputs: Inputs) -> ResolvedRun:
    """Return the run with the numbers of held-out items that it trains on, and that it validates on.

    Args:
        run: pinned.
        inputs: remembers what has been searched.

    Raises:
        InputError: all items are trained on, and the evaluation names another split or file than the stages: they
            only seem to be held out. An evaluation of the training split itself, named as such, is run.
    """
    return replace(run, evaluations=tuple(_count(run, evaluation, inputs) for evaluation in run.evaluations))


def check_best_apart(run: ResolvedRun) -> None:
    """Refuse a run whose weights are chosen by held-out items, as they are where these are its validation data.

    Raises:
        InputError: with their number.
    """
    if not any(stage.spec.load_best_model_at_end for stage in run.stages):
        return
    for counts in (found for evaluation in run.evaluations if (found := evaluation.items_validated_on)):
        if shared := counts.exact + counts.normalised:
            raise InputError(
                f"load_best_model_at_end: {shared:,} held-out items are among the validation data, by which the "
                "weights would be chosen: name another split or file as the stage's validation"
            )


def _count(run: ResolvedRun, evaluation: ResolvedEvaluation, inputs: Inputs) -> ResolvedEvaluation:
    items, splits = evaluation.held_out, [_split_of(data) for stage in run.stages for data, _ in stage.spec.parts]
    trained = [example for stage in run.stages for example in stage.data.examples]
    found = inputs.find_held_out(items, trained, "trained on")
    if (found.items >= Kind.NORMALISED).all() and _split_of(evaluation.spec.data) not in splits:
        raise InputError(
            f"evaluation.data: all {len(items):,} held-out items are trained on too (a file without splits?): name "
            "another split or file, set `decontaminate` in the data of the stages, or leave the evaluation out"
        )
    counts = {"items_trained_on": ItemCounts(**found.counts())}
    if validated := [example for stage in run.stages for example in stage.validation_examples]:
        found = inputs.find_held_out(items, validated, "validated on")
        counts["items_validated_on"] = ItemCounts(**found.counts())
    return replace(evaluation, **counts)


def _split_of(data: Data) -> tuple[str, str, str]:
    return data.source, data.split, repr(sorted(data.options.items()))
