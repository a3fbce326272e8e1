"""Completions by vLLM, several times faster on a GPU than `generate`; optional, for teachers.

    engine = Vllm(folder)
    completions = engine.generate(prompts, max_new_tokens, sampling, generator, vocabulary, head_rows=85)

The engine loads a copy of the weights, so it suits teachers, whose weights stay the same; those of a student in
training would have to be copied to it after every step.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch

from studykit.errors import InputError
from studykit.generation.sampling import Sampling
from studykit.generation.state import Completions
from studykit.generation.vocabulary import Vocabulary

_MEMORY_SHARE = 0.4
"""Of the device's memory; the student, its optimizer and the live teacher need the rest."""

_MAX_TEMPERATURE = 2.0
"""vLLM refuses higher ones."""


class Vllm:
    """A model in vLLM's engine, which is started at the first prompt.

    Its answers have the same distribution as those of `generate`, from other random numbers.

    Args:
        model: a local folder or a hub id.
        revision: of a hub id.

    Raises:
        InputError: vLLM is not installed.
    """

    def __init__(self, model: str, revision: str | None = None):
        try:
            self._library: Any = import_module("vllm")
        except ImportError:
            raise InputError(
                "engine 'vllm' is not installed: pip install 'studykit[vllm]' (Linux with CUDA), or leave engine out"
            ) from None
        self._source = {"model": model, "revision": revision}
        self._engine: Any = None

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: Sequence[int],
        sampling: Sampling,
        generator: torch.Generator,
        vocabulary: Vocabulary,
        head_rows: int,
    ) -> Completions:
        """Sample an answer to every prompt.

        Args:
            prompts: token ids.
            max_new_tokens: maximum number of new tokens for each; a prompt with 0 is not read.
            sampling: how tokens are drawn.
            generator: draws a seed for each prompt, so that runs repeat.
            vocabulary: end tokens, and the ids that may be drawn.
            head_rows: rows of the model's output head; those past the vocabulary belong to no token.

        Raises:
            InputError: a temperature that vLLM refuses.
        """
        if sampling.temperature > _MAX_TEMPERATURE:
            raise InputError(f"engine 'vllm' samples at temperatures up to 2, received {sampling.temperature}")
        seeds = torch.randint(2**31, (len(prompts),), generator=generator).tolist()
        rows = [row for row, maximum in enumerate(max_new_tokens) if maximum > 0]
        allowed = list(range(vocabulary.vocab_size)) if vocabulary.vocab_size < head_rows else None
        parameters = [
            self._library.SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=max_new_tokens[row],
                stop_token_ids=list(vocabulary.eos_token_ids),
                seed=seeds[row],
                allowed_token_ids=allowed,
                skip_special_tokens=False,
                detokenize=False,
            )
            for row in rows
        ]
        tokens: list[list[int]] = [[] for _ in prompts]
        if rows:
            inputs = [self._library.TokensPrompt(prompt_token_ids=list(prompts[row])) for row in rows]
            outputs = self._start().generate(inputs, parameters, use_tqdm=False)
            for row, output in zip(rows, outputs, strict=True):
                tokens[row] = list(output.outputs[0].token_ids)
        ended = [bool(row) and row[-1] in vocabulary.eos_token_ids for row in tokens]
        read = sum(len(prompts[row]) + len(tokens[row]) - 1 for row in rows)
        return Completions(tokens, ended, sum(map(len, tokens)), [read])

    def _start(self) -> Any:
        if self._engine is None:
            self._engine = self._library.LLM(
                **self._source,
                skip_tokenizer_init=True,
                trust_remote_code=False,
                gpu_memory_utilization=_MEMORY_SHARE,
                max_model_len=-1,  # that of the model, or what fits into the memory
            )
        return self._engine
