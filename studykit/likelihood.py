"""How likely a model finds answers: one forward pass over each, through the same head that training uses.

nll = reference_nll(model, encoded, tokenizer, batch_size=256)         # nats per example
scores = mean_logp(models.find("lexicon/teacher-a"), examples)         # per response token, remembered on disk
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from studykit.chat import ENCODING_VERSION, Encoded, encode
from studykit.collate import collate
from studykit.files import cache_folder, replacing
from studykit.models.loading import load_teacher
from studykit.models.names import ModelRef
from studykit.models.projection import logits_in_chunks, output_head
from studykit.models.states import choose_packing, hidden_states
from studykit.models.vocabulary import token_rows
from studykit.sources import Example, content_hash

_BATCH = 256


@torch.no_grad()
def reference_nll(model: nn.Module, encoded: Encoded, tokenizer: Any, batch_size: int) -> list[float]:
    """Return the negative log-likelihood of every example's supervised tokens, summed, nats.

    Rows of the head that belong to no token are left out, as in distillation: no training has lowered their logits.
    """
    head, vocab_size, packed = output_head(model), token_rows(tokenizer), choose_packing(model)
    order = np.argsort(encoded.lengths, kind="stable")
    losses = [0.0] * len(encoded)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = collate(encoded, indices, tokenizer.pad_token_id).to(head.weight.device)
        hidden, target = hidden_states(model, batch.input_ids, batch.attention_mask, packed), batch.target
        parts = [
            torch.nn.functional.cross_entropy(logits, target[rows], reduction="none")
            for rows, logits in logits_in_chunks(batch.predicting(hidden), head, vocab_size)
        ]
        nll = torch.cat(parts)
        sums = torch.zeros(len(indices), dtype=nll.dtype, device=nll.device)
        sums.index_add_(0, batch.sequence, nll)
        for index, value in zip(indices, sums.tolist(), strict=True):
            losses[index] = value
    return losses


def mean_logp(model: ModelRef, examples: Sequence[Example]) -> np.ndarray:
    """Return each example's mean log-probability per response token under a model, with the model's tokenizer.

    Remembered on disk by content of model and examples: a study runs each model over them once.

    Args:
        model: as found by its name.
        examples: conversations or raw texts.

    Returns:
        float64 [len(examples)], nats.

    Raises:
        InputError: the model cannot be loaded.
    """
    key = f"{ENCODING_VERSION}:{model.sha256}:{content_hash(examples)}"
    file = cache_folder("likelihood") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    if not file.exists():
        encoded = encode(examples, model.tokenizer, None)
        nll = np.array(reference_nll(load_teacher(model), encoded, model.tokenizer, _BATCH))
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, -nll / encoded.response_tokens)
    return np.load(file)
