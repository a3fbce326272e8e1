"""Conversations to token ids and loss mask, by the tokenizer's own chat template.

    encoded = encode(examples, tokenizer, max_length=512)

The loss mask holds the assistant's answers and the token that ends each. It leaves out, since the model is given them:

- system and user turns, and the words by which the template opens a turn;
- words that the template puts before an answer (an empty thinking block, the name of a channel);
- what the template writes after the end of a turn (a newline);
- answers with `weight` 0, answers that the template renders otherwise when further turns follow, and, where it has
  `{% generation %}` marks, answers outside of them;
- the first token of a sequence, which nothing predicts, and padding.
"""

from studykit.chat.encoded import Encoded
from studykit.chat.encoding import (
    ENCODING_VERSION,
    check,
    describe_share,
    encode,
    encode_answers,
    encode_prompts,
    tokenize,
    tokenizer_hash,
)
from studykit.chat.ends import TurnEnds, find_turn_ends
from studykit.chat.reasoning import content_of, reasoning_end, without_reasoning
from studykit.chat.sequences import Turns, as_sequences, check_all_answers
from studykit.chat.template import DATE, template_hash

__all__ = [
    "DATE",
    "ENCODING_VERSION",
    "Encoded",
    "TurnEnds",
    "Turns",
    "as_sequences",
    "check",
    "check_all_answers",
    "content_of",
    "describe_share",
    "encode",
    "encode_answers",
    "encode_prompts",
    "find_turn_ends",
    "reasoning_end",
    "template_hash",
    "tokenize",
    "tokenizer_hash",
    "without_reasoning",
]
