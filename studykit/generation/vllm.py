"""Completions by vLLM, several times faster on a GPU than reading in lockstep, where it is installed and asked for.

    engine = Vllm(folder)
    answers = engine.answer(prompts, limits, sampling, generator, ends=[2], vocabulary=85, rows=85)

It holds weights of its own, so it is for models that no step changes, which is to say teachers; a student in training
would have to hand its weights over after every step.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch

from studykit.errors import InputError
from studykit.generation.decoder import Completions
from studykit.generation.sampling import Sampling

_MEMORY_SHARE = 0.4
"""Of the device's memory: the student, its optimizer and the live teacher lie beside it."""

_WARMEST = 2.0
"""vLLM refuses higher temperatures."""


class Vllm:
    """A model behind vLLM's engine, which is started when it is first asked.

    Draws are those of vLLM: of the same distribution as `sample`, by other random numbers.

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
        self._where = {"model": model, "revision": revision}
        self._engine: Any = None

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: Sequence[int],
        sampling: Sampling,
        generator: torch.Generator,
        *,
        eos_token_ids: Sequence[int],
        vocab_size: int,
        rows: int,
    ) -> Completions:
        """Sample an answer to every prompt.

        Args:
            prompts: token ids.
            max_new_tokens: most new tokens of each; where it is 0, the prompt is not read.
            sampling: how tokens are drawn.
            generator: gives each prompt its seed, so that runs repeat.
            eos_token_ids: tokens that end an answer.
            vocab_size: tokens that may be drawn.
            rows: of the model's output head; those past the vocabulary belong to no token.

        Raises:
            InputError: a temperature that vLLM refuses.
        """
        if sampling.temperature > _WARMEST:
            raise InputError(f"engine 'vllm' samples at temperatures up to 2, received {sampling.temperature}")
        seeds = torch.randint(2**31, (len(prompts),), generator=generator).tolist()
        asked = [row for row, limit in enumerate(max_new_tokens) if limit > 0]
        settings = [
            self._library.SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=max_new_tokens[row],
                stop_token_ids=list(eos_token_ids),
                seed=seeds[row],
                allowed_token_ids=list(range(vocab_size)) if vocab_size < rows else None,
                skip_special_tokens=False,
                detokenize=False,
            )
            for row in asked
        ]
        tokens: list[list[int]] = [[] for _ in prompts]
        if asked:
            inputs = [self._library.TokensPrompt(prompt_token_ids=list(prompts[row])) for row in asked]
            for row, made in zip(asked, self._started().generate(inputs, settings, use_tqdm=False), strict=True):
                tokens[row] = list(made.outputs[0].token_ids)
        ended = [bool(row) and row[-1] in eos_token_ids for row in tokens]
        read = sum(len(prompts[row]) + len(tokens[row]) - 1 for row in asked)
        return Completions(tokens, ended, sum(map(len, tokens)), [read])

    def _started(self) -> Any:
        if self._engine is None:
            self._engine = self._library.LLM(
                **self._where,
                skip_tokenizer_init=True,
                trust_remote_code=False,
                gpu_memory_utilization=_MEMORY_SHARE,
                max_model_len=-1,  # the model's own, or what fits into that memory
            )
        return self._engine
