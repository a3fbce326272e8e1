"""Sample answers to prompts: batched, with a key-value cache, from one generator of randomness.

    answers = sample([(student, 1.0)], prompts, limits, sampling, generator)
    answers = draft_and_verify(student, teacher, prompts, limits, generator, ...)       # speculative distillation

A model is wrapped in a `Decoder`, which remembers what it has read. All rows are read in lockstep, and each is padded
on the left only: where rows accept different numbers of drafted tokens, what a row has rejected is forgotten and its
memory moved to the right. Once half of the rows have ended, the batch goes on without them; since every row of the
beginning keeps getting its random number, that changes no answer.
"""

from studykit.generation.decoder import Completions, Decoder, find_eos_token_ids, pad_left, token_settings
from studykit.generation.generate import sample
from studykit.generation.sampling import Sampling, draw
from studykit.generation.speculative import draft_and_verify

__all__ = [
    "Completions",
    "Decoder",
    "Sampling",
    "draft_and_verify",
    "draw",
    "find_eos_token_ids",
    "pad_left",
    "sample",
    "token_settings",
]
