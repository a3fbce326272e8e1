"""Small tokenizers with templates like those that model families publish, and conversations for them."""

import json
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from studykit.chat import encode
from studykit.sources import Example

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|channel|>", "<|message|>")
QUESTION, ANSWER = {"role": "user", "content": "Which town?"}, {"role": "assistant", "content": "Paris"}


def bpe(template: str = CHATML, eos: str | None = "<|endoftext|>", special=SPECIAL) -> Any:
    """Make a byte-level BPE tokenizer, whose words carry the space before them."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=500,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(
        ["Which town? Paris Rome\n\nuser assistant system USER: ASSISTANT: this land"] * 9, trainer
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, chat_template=template)


def conversation(*messages: dict[str, Any], name: str = "a") -> Example:
    return Example(name, tuple(messages), "s", "human", "train")


def trained(example: Example, tokenizer: Any) -> list[str]:
    """Return the runs of trained tokens as text."""
    encoded = encode([example], tokenizer, None)
    on = np.flatnonzero(encoded.supervised_of(0))
    runs = np.split(on, np.flatnonzero(np.diff(on) > 1) + 1)
    return [tokenizer.decode(encoded.ids_of(0)[run].tolist()) for run in runs]


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


ROLES = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
THINK = CHATML.replace(
    "{{ m.content }}", "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
)
CHANNEL = CHATML.replace(
    "<|im_start|>{{ m.role }}\n",
    "<|im_start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final<|message|>{% else %}\n{% endif %}",
)
SPACED = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} {% else %}ASSISTANT: {{ m.content }}"
    "<|endoftext|>{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
RETURN = CHATML.replace("<|im_end|>", "{{ '<|endoftext|>' if loop.last and m.role == 'assistant' else '<|im_end|>' }}")
TRIMMED = CHATML.replace("{{ m.content }}", "{{ m.content | trim }}")
WORDS_ONLY = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"


LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TIGHT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def sentencepiece(template: str, spaces: str, has_bytes: bool = True) -> Any:
    """Make a tokenizer as sentencepiece ones are converted.

    Args:
        template: its chat template.
        spaces: where a space is put in front: "legacy" (by a normalizer, as Llama 2), "first", "always" or "never".
        has_bytes: whether characters that it does not know become bytes, instead of the unknown token.
    """
    backend = Tokenizer(models.BPE(byte_fallback=has_bytes, unk_token="<unk>", fuse_unk=True))
    if spaces == "legacy":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=spaces, split=False)  # type: ignore[arg-type]
    special = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
    trainer = BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    backend.train_from_iterator(["Which town? Paris Rome user assistant INST this land"] * 9, trainer)
    plain = json.loads(backend.to_str())
    known = plain["model"]["vocab"]
    for byte in range(256 * has_bytes):
        known[f"<0x{byte:02X}>"] = len(known)
    backend = Tokenizer.from_str(json.dumps(plain))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", bos_token="<s>", unk_token="<unk>", chat_template=template
    )
