"""The peers' contestants of `step.py`: trl's SFTTrainer, with liger's kernels too, and its GKDTrainer off-policy.

Runs in the environment of the peers and never imports studykit. GKDTrainer gets lmbda=0, so that it trains on the
given sequences, and beta=0, the forward KL that the kit's `kd` has.
"""

import sys

from datasets import Dataset
from transformers import AutoTokenizer

from benchmarks.step_setup import (
    Setting,
    Stopwatch,
    make_model,
    make_sequences,
    make_trainer_settings,
    measure_training,
    run_contestant,
)


def run(setting: Setting, folder: str) -> dict[str, float]:
    """Train with trl, on token ids with a mask, so that nothing is tokenised while the clock runs."""
    liger = setting.contestant == "sft with liger"
    if liger and setting.device != "cuda":
        sys.exit("liger-kernel computes on CUDA only")
    tokenizer = AutoTokenizer.from_pretrained(setting.tokenizer)
    mask = [0] * setting.prompt + [1] * (setting.length - setting.prompt)
    rows = [{"prompt": "", "input_ids": row.tolist(), "completion_mask": mask} for row in make_sequences(setting)]
    settings = make_trainer_settings(setting, folder)
    if setting.contestant == "gkd":
        from trl.experimental.gkd import GKDConfig, GKDTrainer

        arguments = GKDConfig(**settings, lmbda=0.0, beta=0.0, temperature=1.0, max_length=setting.length)
        watch = Stopwatch(setting)
        student = make_model(setting, "student")
        teacher = make_model(setting, "teacher").eval().requires_grad_(False)
        trainer = GKDTrainer(
            student, teacher, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )
        return measure_training(trainer, watch, teacher)
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    arguments = SFTConfig(**settings, completion_only_loss=True, max_length=setting.length, use_liger_kernel=liger)
    watch = Stopwatch(setting)
    data = Dataset.from_list([{name: row[name] for name in ("input_ids", "completion_mask")} for row in rows])
    trainer = SFTTrainer(make_model(setting, "student"), arguments, train_dataset=data, processing_class=tokenizer)
    return measure_training(trainer, watch, None)


if __name__ == "__main__":
    run_contestant(run)
