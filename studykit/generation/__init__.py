"""Generate answers to prompts: batched, with a key-value cache, from one generator of randomness.

    vocabulary = Vocabulary.of(student, tokenizer)
    completions = generate([(student, 1.0)], prompts, max_new_tokens, Sampling(), generator, vocabulary)
    completions = draft_and_verify(student, teacher, prompts, max_new_tokens, generator, speculation, vocabulary)

All rows of a batch are read in lockstep and are padded on the left only. Once half of them have ended, these leave the
batch; each row of the beginning still gets a random number at every draw, so that no answer depends on it.
"""

from studykit.generation.autoregressive import generate
from studykit.generation.decoder import Decoder, open_decoder
from studykit.generation.sampling import Sampling, draw
from studykit.generation.speculative import Speculation, draft_and_verify
from studykit.generation.state import Completions, DecodingState, pad_prompts
from studykit.generation.vocabulary import Vocabulary, find_eos_token_ids

__all__ = [
    "Completions",
    "Decoder",
    "DecodingState",
    "Sampling",
    "Speculation",
    "Vocabulary",
    "draft_and_verify",
    "draw",
    "find_eos_token_ids",
    "generate",
    "open_decoder",
    "pad_prompts",
]
