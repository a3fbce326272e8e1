"""Answers that teachers write for the source `synthetic`, once: kept on disk by the content that they depend on.

    <cache>/synthetic/<key>.jsonl               one line per answer: text, ended, tokens
    <cache>/synthetic/<key>-<filters>.jsonl     one line per answer: how it was sampled, and whether it was kept
    <cache>/synthetic/<key>.cost.json           what they have cost, see `studykit.data.writing_cost`

The key is the hash of the teacher's weights, the conversations and the sampling; runs and processes share an entry, and
a process that finds another one writing waits for it. A killed one loses the answers since the last few hundred.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from studykit.chat import encode_prompts
from studykit.data import writing_cost
from studykit.errors import InputError
from studykit.files import cache_folder, locked, read_lines, replacing
from studykit.generation import Sampling, Vocabulary, generate
from studykit.likelihood import mean_logp
from studykit.models.limits import limits_of
from studykit.models.loading import load_teacher
from studykit.models.names import ModelRef, Models
from studykit.sources import Example, Writing, Written, content_hash
from studykit.spec import Data

_VERSION = 1
_CHUNK, _BATCH = 256, 64
"""Answers that are written to disk together, and those that are generated together."""


class AnswerWriter:
    """What the source `synthetic` is given.

    Args:
        models: looks up teachers.
        prompts_of: returns the examples of data, whose tokens a model counts.

    Attributes:
        manifest: what was written and what was dropped, as plain data; None until then.
    """

    def __init__(self, models: Models, prompts_of: Callable[[Data, ModelRef], list[Example]]):
        self.models, self._prompts_of = models, prompts_of
        self.manifest: dict[str, Any] | None = None
        self._key = ""
        self._answers: list[Written] = []

    def prompts(self, teacher: str, data: Mapping[str, Any]) -> list[Example]:
        """Return the examples whose prompts are answered.

        Raises:
            InputError: a mapping that is no data, or data that cannot be used.
        """
        try:
            parsed = Data.model_validate(dict(data))
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "data"
            raise InputError(f"source 'synthetic': prompts: {where}: {fault['msg']}") from None
        return self._prompts_of(parsed, self.models.find(teacher))

    def write(self, teacher: str, conversations: Sequence[Example], writing: Writing) -> list[Written]:
        """Return the teacher's answers, in order; read from disk where they were written before."""
        model = self.models.find(teacher)
        identity = [_VERSION, model.sha256, content_hash(conversations), asdict(writing)]
        self._key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        file = cache_folder("synthetic") / f"{self._key}.jsonl"
        with locked(file.with_suffix(".lease")):
            if not file.exists():
                _write_all(model, conversations, writing, file)
        self._answers = [Written(**line) for line in read_lines(file)[0]]
        return self._answers

    def mean_logp(self, teacher: str, examples: Sequence[Example]) -> Sequence[float]:
        """Return the mean log-probability of each answer's tokens under the teacher, nats."""
        return mean_logp(self.models.find(teacher), examples).tolist() if examples else []

    def report(
        self, teacher: str, writing: Writing, answered: Sequence[Example], dropped_by: Sequence[str | None]
    ) -> None:
        """Keep on disk where each answer comes from, and which filter dropped it."""
        shared = {"teacher": teacher, "teacher_sha256": self.models.find(teacher).sha256, **asdict(writing)}
        lines = [
            {"id": example.id, "kept": reason is None, "dropped_by": reason, **shared}
            for example, reason in zip(answered, dropped_by, strict=True)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        file = cache_folder("synthetic") / f"{self._key}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"
        if not file.exists():
            with replacing(file) as temporary:
                temporary.write_text(text, encoding="utf-8")
        ended = sum(answer.ended for answer in self._answers)
        self.manifest = shared | {
            "key": self._key,
            "answers": len(lines),
            "ended": ended,
            "cut": len(lines) - ended,
            "generated_tokens": sum(answer.tokens for answer in self._answers),
            "kept": sum(line["kept"] for line in lines),
            "dropped": dict(Counter(reason for reason in dropped_by if reason is not None)),
            "provenance": file.name,
        }


def _write_all(model: ModelRef, conversations: Sequence[Example], writing: Writing, file: Path) -> None:
    """Write all answers, after those of an earlier process that was killed."""
    part = file.with_suffix(".part")
    lines = read_lines(part)[0]
    done = lines[: len(lines) // _CHUNK * _CHUNK]
    began = time.monotonic()
    prompts = encode_prompts([_with_some_answer(example) for example in conversations], model.tokenizer)
    _check_positions(model, prompts, writing)
    loaded = load_teacher(model)
    with part.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in done)
        for start in range(len(done), len(prompts), _CHUNK):
            chunk = prompts[start : start + _CHUNK]
            answers = _write_chunk(loaded, model.tokenizer, chunk, writing, start)
            stream.writelines(json.dumps(asdict(answer), ensure_ascii=False) + "\n" for answer in answers)
            stream.flush()
            tokens, now = sum(answer.tokens for answer in answers), time.monotonic()
            writing_cost.add(file.stem, tokens=tokens, prompt_tokens=sum(map(len, chunk)), s=now - began)
            began = now
    with replacing(file) as temporary:
        part.replace(temporary)


def _write_chunk(model: Any, tokenizer: Any, prompts: list[list[int]], writing: Writing, start: int) -> list[Written]:
    """Return the answers to some prompts; their random numbers depend on the seed and on the first one's number."""
    sampling, vocabulary = Sampling(writing.temperature, writing.top_p), Vocabulary.of(model, tokenizer)
    generator = torch.Generator().manual_seed((writing.seed << 24) + start)
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    answers: dict[int, Written] = {}
    for first in range(0, len(order), _BATCH):
        rows = order[first : first + _BATCH].tolist()
        limits = [writing.max_new_tokens] * len(rows)
        completions = generate([(model, 1.0)], [prompts[i] for i in rows], limits, sampling, generator, vocabulary)
        texts = tokenizer.batch_decode(completions.without_end, skip_special_tokens=True)
        for row, text, tokens, ended in zip(rows, texts, completions.tokens, completions.ended, strict=True):
            answers[row] = Written(text.strip(), bool(ended), len(tokens))
    return [answers[row] for row in range(len(prompts))]


def _with_some_answer(example: Example) -> Example:
    """Return the conversation with any answer in the place of an empty one: templates may refuse or drop that."""
    if example.answer.strip():
        return example
    return Example(
        example.id,
        (*example.messages[:-1], {"role": "assistant", "content": "-"}),
        example.source,
        example.annotator,
        example.split,
    )


def _check_positions(model: ModelRef, prompts: list[list[int]], writing: Writing) -> None:
    longest = max(map(len, prompts)) + writing.max_new_tokens
    positions = limits_of(model, longest=longest).positions
    if positions is not None and longest > positions:
        raise InputError(
            f"source 'synthetic': a prompt with its answer may have {longest:,} tokens, and {model.name!r} has "
            f"{positions:,} positions: lower max_new_tokens or few_shot, or leave long prompts out by filters"
        )
