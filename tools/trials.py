"""What is tried on a small model of each architecture, each against a plain computation: see `tools.architectures`.

subject = Subject.make("llama", folder)
subject.load()
TRIALS["logits"](subject)                       # raises where they are not the model's own
"""

import copy
import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from studykit import study
from studykit.collate import Batch
from studykit.generation import Sampling, Vocabulary, generate
from studykit.generation.probe import probe_generation
from studykit.head import Labels, Objective, head_loss
from studykit.losses import get_loss
from studykit.models.loading import load_student
from studykit.models.names import Models
from studykit.models.probe import one_line_errors
from studykit.models.projection import output_head, project
from studykit.models.round_trip import check_round_trip
from studykit.models.small_copy import POSITIONS, WINDOW
from studykit.models.states import choose_packing, hidden_states
from studykit.spec import RunSpec, Student
from studykit.study.pin import pin
from tools.small_models import random_model, small_config

TOLERANCE = 2e-3
"""Of the largest value: float32 sums in another order."""

_TIE = 1e-6
"""Of the largest logit: two tokens closer than this are in either order by rounding."""

_STORED = 2e-4
"""Nats by which probabilities of a cached teacher, in 16 bits, change a loss."""

IDS = torch.tensor([[7, 20, 33, 5, 61, 44, 18, 72, 9], [50, 41, 32, 23, 14, 5, 77, 68, 59]])
MASK = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
PROMPTS = [[5, 9, 33], [4, 8, 15, 16, 23, 42, 7], [61]]
NEW_TOKENS = 2 * WINDOW + 3
WORDS = {"cat": "K AE T", "dog": "D AO G", "hat": "HH AE T", "goat": "G OW T", "sun": "S AH N", "moon": "M UW N"}
HELD_OUT = {"sat": "S AE T", "coat": "K OW T"}


@dataclass
class Subject:
    """A small model on disk, with a teacher of the same architecture.

    Attributes:
        model_type: of transformers.
        folder: holds the models, the data and the runs.
        model: as it was made, in evaluation mode.
        loaded: the same one as the package loads it.
    """

    model_type: str
    folder: Path
    model: Any
    loaded: Any = None
    rows: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, model_type: str, folder: Path) -> "Subject":
        """Make and save student and teacher; whatever the class raises goes through."""
        tokenizer = Models().find("lexicon/tokenizer").tokenizer
        config = small_config(model_type)
        for name, seed in (("teacher", 1), ("student", 0)):
            model: Any = random_model(copy.deepcopy(config), seed)
            model.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
        lines = [
            {"prompt": f"Pronounce {' '.join(word)}", "completion": sounds, "split": split}
            for split, words in (("train", WORDS), ("test", HELD_OUT))
            for word, sounds in words.items()
        ]
        text = "".join(json.dumps(line | {"id": f"{i}"}) + "\n" for i, line in enumerate(lines))
        (folder / "words.jsonl").write_text(text, encoding="utf-8")
        return cls(model_type, folder, model)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def load(self) -> None:
        """Load the student as a run does."""
        name = str(self.folder / "student")
        self.loaded = load_student(Student(name=name), Models().find(name)).eval()

    def spec(self, method: str, **changes: Any) -> RunSpec:
        """Return a run of two steps."""
        data = {"source": "jsonl", "options": {"path": str(self.folder / "words.jsonl")}}
        options, top_k, lora, scorers = (changes.get(n) for n in ("options", "top_k", "lora", "scorers"))
        stage = {"data": data, "method": method, "steps": 2, "batch_size": 3, "learning_rate": 1e-3, "max_length": 60}
        plain: dict[str, Any] = {
            "student": {"name": str(self.folder / "student"), "lora": lora},
            "teacher": {"name": str(self.folder / "teacher"), "top_k": top_k},
            "stages": [stage | {"method_options": options or {}}],
        }
        if scorers:
            test = {**data, "split": "test"}
            plain["evaluation"] = {"data": test, "items": 2, "max_new_tokens": 4, "batch_size": 2, "scorers": scorers}
        return RunSpec.parse(plain)

    def run(self, method: str, **changes: Any) -> tuple[Any, list[dict[str, float]]]:
        """Train, and return the pinned run and its curve."""
        resolved = pin(self.spec(method, **changes), self.folder / "results")
        row = study.run(resolved.spec, study="s", root=self.folder / "results")
        self.rows[method] = row
        run = self.folder / "results" / "s" / "runs" / row["run_id"]
        curve = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return resolved, [json.loads(line) for line in curve]


def check_close(what: str, found: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    """Raise unless all values differ by at most a share of the largest."""
    error, largest = (found - wanted).abs().max(), wanted.abs().max()
    if not error <= tolerance * largest:
        raise AssertionError(f"{what} differ by {float(error):.3g} of {float(largest):.3g}")


@torch.no_grad()
def own_logits(model: Any, ids: Tensor) -> Tensor:
    """Return the model's own logits of rows without padding, float32 [B, T, V]."""
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()


@torch.no_grad()
def kit_logits(model: Any, ids: Tensor, mask: Tensor, packed: bool = False) -> Tensor:
    """Return the logits that a loss of the package sees, float32 [B, T, V]."""
    head = output_head(model)
    states = hidden_states(model, ids, mask, packed)
    return project(states, head.weight, head.bias, head.logit_scale, head.softcap)


def try_logits(subject: Subject) -> None:
    """The logits are the model's own."""
    check_close("logits", kit_logits(subject.loaded, IDS, torch.ones_like(IDS)), own_logits(subject.loaded, IDS))


def try_padding(subject: Subject) -> None:
    """The logits of a padded row are those of the row alone."""
    short = int(MASK[1].sum())
    check_close(
        "logits of a padded row",
        kit_logits(subject.loaded, IDS * MASK, MASK)[1, :short],
        own_logits(subject.loaded, IDS[1:, :short])[0],
    )


def try_packing(subject: Subject) -> None:
    """Rows without padding give the same logits."""
    packed = choose_packing(subject.loaded, True)
    check_close(
        "logits of packed rows",
        kit_logits(subject.loaded, IDS, MASK, packed)[MASK.bool()],
        kit_logits(subject.loaded, IDS, MASK)[MASK.bool()],
    )


def try_saving(subject: Subject) -> None:
    """What was saved and loaded again is the model, parameter by parameter, and so are its logits."""
    check_round_trip(copy.deepcopy(subject.model), subject.folder / "saved again", f"model {subject.model_type!r}")
    check_close("logits after saving", own_logits(subject.loaded, IDS), own_logits(subject.model, IDS), 1e-5)


def try_generation(subject: Subject) -> None:
    """Greedy answers of a batch are those of each prompt alone, by forward passes and by transformers."""
    model, size = subject.loaded, 85
    vocabulary = Vocabulary([size], 0, size)
    probe_generation(model, subject.model_type, size)
    limits = [NEW_TOKENS] * len(PROMPTS)
    found = generate([(model, 1.0)], PROMPTS, limits, Sampling(0), torch.Generator(), vocabulary).tokens
    for prompt, answer in zip(PROMPTS, found, strict=True):
        if not _is_greedy(subject.model, prompt, answer, size):
            raise AssertionError(f"to {prompt} the answer is {answer}, and forward passes prefer other tokens")


def _is_greedy(model: Any, prompt: list[int], answer: list[int], size: int) -> bool:
    """Whether each token of an answer is the likeliest by one forward pass, or as likely but for rounding."""
    logits = own_logits(model, torch.tensor([prompt + answer]))[0, len(prompt) - 1 : -1, :size]
    chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
    return bool((logits.amax(dim=1) - chosen <= _TIE * logits.abs().max()).all())


def try_own_generation(subject: Subject) -> None:
    """Greedy answers are those of transformers' `generate`, prompt by prompt, wherever these are of forward passes.

    Where `generate` fails (RecurrentGemma, xLSTM), they are those of forward passes.
    """
    model, size = subject.loaded, 85
    vocabulary = Vocabulary([size], 0, size)
    for prompt in PROMPTS:
        theirs = _generate_by_transformers(model, prompt, size)
        found = generate([(model, 1.0)], [prompt], [NEW_TOKENS], Sampling(0), torch.Generator(), vocabulary).tokens[0]
        theirs_alone = theirs is None or (found != theirs and _is_greedy(subject.model, prompt, theirs, size))
        if theirs_alone and not _is_greedy(subject.model, prompt, found, size):
            raise AssertionError(f"the answer is {found}, and transformers' {theirs}")


def _generate_by_transformers(model: Any, prompt: list[int], size: int) -> list[int] | None:
    """Return the greedy answer of `generate` among the first tokens; None where it fails."""
    ids = torch.tensor([prompt])
    others = [[token] for token in range(size, len(model.get_output_embeddings().weight))]
    try:
        made = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            bad_words_ids=others or None,
        )
    except Exception:  # the cache of some recurrent architectures
        return None
    return made[0, len(prompt) :].tolist()


def plain_loss(subject: Subject, resolved: Any, *, teacher: bool) -> float:
    """Return the loss of the first step by plain logits: cross-entropy, or forward KL from the teacher."""
    (stage,), size = resolved.stages, 85
    batch = stage.plan()[0]
    models = [random_model(small_config(subject.model_type), seed) for seed in ((0, 1) if teacher else (0,))]
    total, count = 0.0, 0
    for row in batch:
        ids = torch.from_numpy(stage.data.encoded.ids_of(row).astype("int64"))[None]
        on = torch.from_numpy(stage.data.encoded.supervised_of(row).copy())[1:]
        logps = [own_logits(m, ids)[0, :-1, :size].double().log_softmax(-1)[on] for m in models]
        if teacher:
            total += float((logps[1].exp() * (logps[1] - logps[0])).sum())
        else:
            total += float(functional.nll_loss(logps[0], ids[0, 1:][on], reduction="sum"))
        count += int(on.sum())
    return total / count


def try_gradients(subject: Subject) -> None:
    """Cross-entropy and its gradients over padded rows are those of plain logits, row by row."""
    model, size = subject.loaded, 85
    with one_line_errors("a training step fails"):
        hidden_states(model, IDS, torch.ones_like(IDS))
    batch = Batch(IDS * MASK, MASK, MASK.bool())
    losses, gradients = [], []
    for by_hand in (True, False):
        model.zero_grad(set_to_none=True)
        if by_hand:
            parts = [model(input_ids=ids[mask.bool()][None], use_cache=False).logits[0, :-1, :size] for ids, mask in
                     zip(IDS, MASK, strict=True)]  # fmt: skip
            loss = functional.cross_entropy(torch.cat(parts), batch.target, reduction="sum")
        else:
            states = hidden_states(model, batch.input_ids, batch.attention_mask)
            objective = Objective(get_loss("cross_entropy"))
            loss, _ = head_loss(
                batch.predicting(states), output_head(model, size), None, Labels(batch.target), objective, 1
            )
        with one_line_errors("a training step fails"):
            loss.backward()
        losses.append(loss.detach()[None])
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    model.zero_grad(set_to_none=True)
    check_close("losses", losses[1], losses[0])
    if not gradients[0] or gradients[0].keys() != gradients[1].keys():
        raise AssertionError("gradients reach other parameters")
    plain, found = (torch.cat([gradient.flatten() for gradient in part.values()]) for part in gradients)
    check_close("gradients", found, plain)


def try_method(method: str, subject: Subject, **changes: Any) -> None:
    """Two steps train, and the first loss is that of a plain computation."""
    resolved, curve = subject.run(method, **changes)
    wanted = plain_loss(subject, resolved, teacher=method == "kd")
    if abs(curve[0]["loss"] - wanted) > 5 * TOLERANCE * wanted + _STORED:
        raise AssertionError(f"the loss of {method} is {curve[0]['loss']:.5g}, and by hand {wanted:.5g}")


def try_gkd(subject: Subject) -> None:
    """Two steps on the student's answers train."""
    _, curve = subject.run("gkd", options={"lmbda": 1.0, "max_new_tokens": 6})
    if not curve[0]["loss"] > 0:
        raise AssertionError(f"the loss is {curve[0]['loss']}")


def try_lora(subject: Subject) -> None:
    """Adapters train, are scored and saved; the merged model loads, and differs from the base."""
    resolved, _ = subject.run("sft", lora={"lora_r": 2}, scorers=["exact_match", "nll"])
    run = Models(subject.folder / "results").find(resolved.spec.run_id)
    merged = load_student(Student(name=run.name), run).eval()
    if torch.equal(own_logits(merged, IDS), own_logits(subject.model, IDS)):
        raise AssertionError("the merged model is the base")


TRIALS = {
    "logits": try_logits,
    "saving": try_saving,
    "padding": try_padding,
    "packing": try_packing,
    "gradients": try_gradients,
    "generation": try_generation,
    "transformers' generation": try_own_generation,
    "sft": partial(try_method, "sft", scorers=["exact_match", "nll"]),
    "kd": partial(try_method, "kd"),
    "kd, cached": partial(try_method, "kd", top_k=85),
    "gkd": try_gkd,
    "LoRA": try_lora,
}
"""What is tried, by name, in this order."""

assert max(map(len, PROMPTS)) + NEW_TOKENS < POSITIONS
