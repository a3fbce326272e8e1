"""One definition of where an answer ends: training, evaluation, rollouts, likelihood, vLLM, record, saved model."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from studykit import evaluation as evaluating
from studykit import results, study
from studykit.chat import encode, find_turn_ends, tokenizer_hash
from studykit.chat.template import render
from studykit.collate import collate
from studykit.generation import Completions, Sampling, Vocabulary
from studykit.likelihood import reference_nll
from studykit.models.projection import output_head
from studykit.rollouts import RolloutContext
from studykit.rollouts.teacher import Teacher
from studykit.sources import Example
from studykit.spec import Evaluation
from studykit.teacher.live import LiveTeacher, generate_with

TRL = Path(find_spec("trl").origin).parent / "chat_templates" if find_spec("trl") else Path()  # type: ignore[union-attr, arg-type]
TOWNS = (("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Japan", "Tokyo"))
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES = {
    "qwen2_5": ("<|im_end|>", "<|endoftext|>"),
    "llama3": ("<|eot_id|>", "<|end_of_text|>"),
    "glm4moe": ("<|user|>", "<|endoftext|>"),
    "gemma": ("<end_of_turn>", "<eos>"),
}
"""By family, the token that ends a turn, and another one that a base model's tokenizer calls its end token."""


def towns() -> list[Example]:
    return [
        Example(
            land,
            ({"role": "user", "content": f"Which town? {land}"}, {"role": "assistant", "content": town}),
            "s",
            "h",
            "train",
        )
        for land, town in TOWNS
    ]


def make_tokenizer(template: str, eos: str) -> Any:
    """Make a byte-level tokenizer whose special tokens are those that the template writes."""
    special = sorted({eos, "<|pad|>", *re.findall(r"<[|]?[a-z_]+[|]?>|<\|[a-z_]+\|>", template)} - {"<function-name>"})
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([f"Which town? {land} {town}" for land, town in TOWNS] * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=eos, pad_token="<|pad|>", bos_token=special[0], chat_template=template
    )


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tiny_model):
    """Return the tokenizer of a family as a base model has it, a random model, and the ids of both ends."""
    if not TRL.is_dir():
        pytest.skip("trl is not installed")
    template = (TRL / f"{request.param}_training.jinja").read_text(encoding="utf-8")
    end, eos = FAMILIES[request.param]
    tokenizer = make_tokenizer(template, eos)
    model = tiny_model(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id).eval()
    return tokenizer, model, tokenizer.convert_tokens_to_ids(end)


def test_training_teaches_the_end_of_a_turn_once_and_likelihood_counts_it(family):
    tokenizer, model, end = family
    encoded = encode(towns(), tokenizer, None)
    assert encoded.ends() == [end] == [find_turn_ends(tokenizer).last]
    losses = reference_nll(model, encoded, tokenizer, 2)
    for i, (_, town) in enumerate(TOWNS):
        ids, on = torch.from_numpy(encoded.ids_of(i)).long(), torch.from_numpy(encoded.supervised_of(i).copy())
        taught = ids[on].tolist()
        assert (taught.count(end), taught[-1]) == (1, end)
        assert tokenizer.decode(taught[:-1]).strip() == town
        logp = model(input_ids=ids[None]).logits[0].detach().double().log_softmax(-1)
        assert losses[i] == pytest.approx(-sum(float(logp[at - 1, ids[at]]) for at in on.nonzero()[:, 0]), rel=1e-4)


def test_evaluation_rollouts_and_vllm_stop_at_the_same_tokens(family, monkeypatch):
    tokenizer, model, end = family
    stops = {"vocabulary": list(Vocabulary.of(model, tokenizer).eos_token_ids)}

    def generate(models, prompts, max_new_tokens, sampling, generator, vocabulary):
        stops["evaluation"] = list(vocabulary.eos_token_ids)
        return Completions([[end] for _ in prompts], [True] * len(prompts), 1, [1])

    monkeypatch.setattr(evaluating, "generate", generate)
    data: Any = {"source": "jsonl"}
    assert evaluating.answer_greedily(model, tokenizer, towns(), Evaluation(data=data)) == [("", False)] * 4
    stops["rollouts"] = list(RolloutContext(model, None, tokenizer, torch.Generator()).vocabulary.eos_token_ids)
    engine = Engine(stops)
    teacher: Any = SimpleNamespace(model=model, tokenizer=tokenizer, engine=engine, head=output_head(model))
    generate_with(teacher, [[5]], [3], Sampling(), torch.Generator(), len(tokenizer))
    assert set(map(tuple, stops.values())) == {tuple(sorted({end, tokenizer.eos_token_id}))}
    assert set(encode(towns(), tokenizer, None).ends()) < set(stops["vllm"])


class Engine:
    """Takes the place of vLLM's engine, and answers every prompt alike."""

    def __init__(self, stops: dict[str, list[int]], answer: tuple[int, ...] = (1,)):
        self.stops, self.answer = stops, list(answer)

    def generate(self, prompts, max_new_tokens, sampling, generator, vocabulary, head_rows):
        self.stops["vllm"] = list(vocabulary.eos_token_ids)
        ended = self.answer[-1] in vocabulary.eos_token_ids
        return Completions([self.answer for _ in prompts], [ended] * len(prompts), 1, [1])


@pytest.mark.parametrize(
    ("generated", "taught"),
    [
        ("Paris<|im_end|>", "Paris<|im_end|>"),
        ("Paris<|endoftext|>", "Paris<|im_end|>"),  # the teacher's end is not the one that the student stops at
        ("<think>\nRome?\n</think>\n\nParis<|im_end|>", "Paris<|im_end|>"),
        ("<think>\nRome?", ""),
        ("<think>\nRome?<|im_end|>", ""),
        ("<|im_end|>", "<|im_end|>"),
        ("Paris", "Paris"),
    ],
)
def test_a_teachers_answers_are_passed_on_as_content_and_the_students_end(generated, taught, tiny_model):
    tokenizer = make_tokenizer(
        CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}"), "<|endoftext|>"
    )
    model = tiny_model(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id).eval()
    ids = tokenizer(generated, add_special_tokens=False)["input_ids"]
    teacher = LiveTeacher(model, tokenizer, len(tokenizer), Engine({}, tuple(ids)))  # type: ignore[arg-type]
    context = RolloutContext(model, teacher, tokenizer, torch.Generator())
    encoded = encode(towns(), tokenizer, None)
    batch = collate(encoded, [0], tokenizer.pad_token_id)
    (answer,) = Teacher(max_new_tokens=40).answer(batch, batch.prompts(), context)
    assert tokenizer.decode(answer) == taught


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_config, tiny_model):
    """Train a base model, whose configuration knows no end of a turn; return the run's folder, tokenizer and row."""
    root = tmp_path_factory.mktemp("turn-ends")
    template = CHATML.replace(
        "<|im_start|>{{ m.role }}\n",
        "<|im_start|>{{ m.role }}\n{{ '<think>\n\n</think>\n\n' if m.role == 'assistant' and loop.last }}",
    )
    tokenizer = make_tokenizer(template, "<|endoftext|>")
    tokenizer.save_pretrained(root / "base")
    tiny_model(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, hidden_size=32).save_pretrained(
        root / "base"
    )
    lines = [json.dumps({"prompt": f"Which town? {land}", "completion": town}) for land, town in TOWNS]
    (root / "towns.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data = {"source": "jsonl", "options": {"path": str(root / "towns.jsonl")}}
    stage = {"data": data, "method": "sft", "steps": 90, "batch_size": 4, "learning_rate": 1e-2}
    spec = {
        "student": {"name": str(root / "base")},
        "stages": [stage],
        "evaluation": {"data": data, "max_new_tokens": 16},
    }
    row = study.run(spec, root=root / "results")
    return results.find_run(root / "results", row["run_id"]), tokenizer, row


def test_a_base_model_that_learns_to_answer_stops_and_scores(trained):
    _, _, row = trained
    assert row["nll"] < 0.3  # or the training is too short for this test
    assert row["exact_match"] == 1


def chat_of(folder: Path) -> Any:
    record: Any = results.read_record(folder)
    return record.chat


def test_the_record_names_the_ends_the_template_and_the_turns(trained):
    folder, _, _ = trained
    chat = chat_of(folder)
    assert [token.text for token in chat.ends] == ["<|im_end|>"]
    assert {token.text for token in chat.stops} == {"<|im_end|>", "<|endoftext|>"}
    assert (chat.turns, chat.template_date, len(chat.template_sha256)) == ((None,), "2024-07-26", 64)
    record: Any = results.read_record(folder)
    manifest = record.data[0]
    assert (manifest.examples, manifest.sequences, manifest.answers, manifest.answers_left_out) == (4, 4, 4, 0)


def test_what_was_saved_is_what_was_trained_and_stops_by_itself(trained):
    folder, tokenizer, _ = trained
    saved: Any = AutoTokenizer.from_pretrained(folder / "model")
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model")
    chat = chat_of(folder)
    assert tokenizer_hash(saved) == tokenizer_hash(tokenizer)
    assert saved.chat_template == tokenizer.chat_template
    assert model.generation_config.eos_token_id == [token.id for token in chat.stops]
    assert model.generation_config.pad_token_id == saved.pad_token_id
    for item in results.read_items(folder)[0]:
        (text,) = render([[{"role": "user", "content": item["prompt"]}]], saved, add_generation_prompt=True)
        ids = saved(text + "<think>\n\n</think>\n\n", add_special_tokens=False, return_tensors="pt")
        out = model.generate(**ids, do_sample=False, max_new_tokens=16)[0, ids["input_ids"].shape[1] :]
        assert saved.decode(out) == f"{item['reference']}<|im_end|>" == f"{item['answer']}<|im_end|>"
