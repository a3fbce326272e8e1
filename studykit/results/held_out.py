"""The held-out items of an evaluation as typed records: what they cover, and how many are trained on too."""

from pydantic import Field

from studykit.results.plain import Record


class HeldOut(Record):
    """Which items a run was scored on, and what they cover of their split."""

    examples: int = Field(description="number of items")
    pool_examples: int = Field(description="number of examples in the split")
    examples_sha256: str = Field(description="hash of the items in their order")
    by_source: dict[str, int] = Field(description="number of items by source")
    references: int = Field(description="number of distinct references among the items")
    pool_references: int = Field(description="number of distinct references in the split")
    by_reference: dict[str, int] | None = Field(
        default=None, description="number of items by reference, where the split has few references: its labels"
    )


class ItemCounts(Record):
    """How many held-out items other data have too, each under the first of these that applies."""

    exact: int = Field(default=0, description="with the same prompt and answer, character by character")
    normalised: int = Field(default=0, description="the same but for case, punctuation, Unicode form and whitespace")
    near: int = Field(default=0, description="with most of their sequences of five words in one example")
    same_prompt: int = Field(default=0, description="with the same prompt and another answer")
