"""Build the embedded models of `lexicon`: `python -m tools.embed` (or `make lexicon-models`).

A word-level tokenizer over letters, phonemes and task words, with a chat template; three base students pre-trained
on raw text only; teacher A trained on the student's pool, and a ladder below it, trained on 2,500 and 10,000 words of
the pool; teacher B that has seen words outside the pool as well; teacher C, smaller, that writes phonemes letter by
letter in another tokenizer; a small reference model trained on a few words outside the pool. Each is an ordinary run
of the specification beside it, and takes minutes on one core.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel, WordPiece
from transformers import PreTrainedTokenizerFast

from studykit import results, study
from studykit.models.names import EMBEDDED
from studykit.sources.lexicon import PHONEMES
from studykit.spec import RunSpec

FOLDER = EMBEDDED / "lexicon"

TASK_WORDS, DIGITS, LETTERS = ("Pronounce", "Spell", "Stress", "Syllables"), "0123456789", "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["<|pad|>", "<|unknown|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of all lexicon models: one token per letter, phoneme, digit and task word."""
    words = [*TASK_WORDS, *DIGITS, *LETTERS, *PHONEMES]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate([*SPECIAL, *words])}, unk_token="<|unknown|>"))
    return _wrap(backend)


def build_letter_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of teacher C: a phoneme is as many tokens as it has letters (AE is A and ##E)."""
    capitals = sorted({letter for phoneme in PHONEMES for letter in phoneme})
    pieces = [*TASK_WORDS, *DIGITS, *LETTERS, *capitals, *(f"##{letter}" for letter in capitals)]
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, *pieces])}
    backend = Tokenizer(WordPiece(vocabulary, unk_token="<|unknown|>"))
    backend.decoder = decoders.WordPiece()
    return _wrap(backend)


def _wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), behavior="removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        unk_token="<|unknown|>",
        eos_token="<|end|>",
        extra_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=64,
    )


def shape(hidden_size: int, layers: int, heads: int, tokenizer: PreTrainedTokenizerFast | None = None) -> dict:
    """Return a Llama architecture over a tokenizer's vocabulary, by default the lexicon's."""
    vocabulary = tokenizer or build_tokenizer()
    return {
        "model_type": "llama",
        "vocab_size": len(vocabulary),
        "hidden_size": hidden_size,
        "intermediate_size": 8 * hidden_size // 3 // 8 * 8,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 64,
        "pad_token_id": vocabulary.pad_token_id,
        "bos_token_id": vocabulary.eos_token_id,
        "eos_token_id": vocabulary.eos_token_id,
        "tie_word_embeddings": False,
    }


SMALL, MEDIUM, LARGE, TEACHER = shape(32, 2, 2), shape(64, 2, 4), shape(96, 3, 4), shape(128, 3, 4)
TEACHER_C = shape(80, 3, 4, build_letter_tokenizer())


def base(config: dict[str, Any]) -> RunSpec:
    """Return the pre-training of a base student: raw text of spellings and pronunciations, never a pair."""
    tasks = {"tasks": ["text"]}
    data = {"source": "lexicon", "split": "outside", "options": tasks}
    held_out = {"source": "lexicon", "split": "validation", "options": tasks}
    return _spec(config, data, steps=1000, learning_rate=1e-3, evaluation={"data": held_out, "scorers": ["nll"]})


def teacher(
    split: str,
    steps: int,
    config: dict = TEACHER,
    tokenizer: str = "lexicon/tokenizer",
    max_new_tokens: int = 16,
    examples: int | None = None,
) -> RunSpec:
    """Return the fine-tuning of a teacher, from random weights, on all pairs of a split or on some of them."""
    data = {"source": "lexicon", "split": split} | ({"budget": {"examples": examples}} if examples else {})
    held_out = {"data": {"source": "lexicon", "split": "validation"}}
    held_out |= {"max_new_tokens": max_new_tokens, "batch_size": 500}
    return _spec(config, data, steps=steps, learning_rate=3e-3, evaluation=held_out, tokenizer=tokenizer)


def reference() -> RunSpec:
    """Return the fine-tuning of the reference model of the likelihood samplers: small, on words outside the pool."""
    data = {"source": "lexicon", "split": "outside", "budget": {"examples": 5000}}
    held_out = {"data": {"source": "lexicon", "split": "validation"}, "max_new_tokens": 16, "batch_size": 500}
    spec = _spec(SMALL, data, steps=500, learning_rate=4e-3, evaluation=held_out)
    return RunSpec.parse(spec.model_dump() | {"student": {"name": "lexicon/base-small"}})


def _spec(
    config: dict,
    data: dict,
    steps: int,
    learning_rate: float,
    evaluation: dict,
    tokenizer: str = "lexicon/tokenizer",
) -> RunSpec:
    stage = {"data": data, "method": "sft", "steps": steps, "batch_size": 128, "learning_rate": learning_rate}
    return RunSpec.parse(
        {
            "student": {"name": tokenizer, "random_config": config},
            "stages": [stage | {"max_length": 64}],
            "evaluation": evaluation,
        }
    )


SPECS = {
    "base-small": base(SMALL),
    "base-medium": base(MEDIUM),
    "base-large": base(LARGE),
    "teacher-a": teacher("train", steps=3000),
    "teacher-a-10000": teacher("train", steps=1000, examples=10_000),
    "teacher-a-2500": teacher("train", steps=500, examples=2500),
    "teacher-b": teacher("train+outside", steps=4500),
    "teacher-c": teacher(
        "train", steps=3000, config=TEACHER_C, tokenizer="lexicon/letter-tokenizer", max_new_tokens=32
    ),
    "reference": reference(),
}


def build(name: str, root: Path = Path("results")) -> None:
    """Run one specification and put weights, specification, record and curve into the package."""
    row = study.run(SPECS[name], study="lexicon-models", root=root)
    source = results.find_run(root / "lexicon-models", row["run_id"])
    target = FOLDER / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / "model", target, ignore=shutil.ignore_patterns("README.md"))
    for evidence in ("spec.json", "record.json", "metrics.jsonl"):
        shutil.copy(source / evidence, target / evidence)
    shutil.copytree(source / "evaluations", target / "evaluations", ignore=shutil.ignore_patterns("items.jsonl"))
    print(f"{name}: run {row['run_id']}, { ({k: round(row[k], 4) for k in ('exact_match', 'nll') if k in row}) }")


if __name__ == "__main__":
    build_tokenizer().save_pretrained(FOLDER / "tokenizer")
    build_letter_tokenizer().save_pretrained(FOLDER / "letter-tokenizer")
    for name in sys.argv[1:] or SPECS:
        build(name)
