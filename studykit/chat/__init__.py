"""Conversations to token ids and loss mask, by the tokenizer's own chat template.

    encoded = encode(examples, tokenizer, max_length=512)

The loss mask holds the assistant's answers and the token that ends each. It leaves out, since the model is given them:

- system and user turns, and the words by which the template opens a turn;
- words that the template puts before an answer (an empty thinking block, the name of a channel);
- what the template writes after the end of a turn (a newline);
- answers with `weight` 0, and answers that the template renders otherwise when further turns follow;
- the first token of a sequence, which nothing predicts, and padding.
"""

from studykit.chat.encoded import Encoded
from studykit.chat.encoding import check, encode, encode_prompts, tokenizer_hash
from studykit.chat.turns import find_turn_ends

__all__ = ["Encoded", "check", "encode", "encode_prompts", "find_turn_ends", "tokenizer_hash"]
